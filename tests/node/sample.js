// An application with the X-Ray SDK for Node.js that asks its sampler, as a program.
//
// In: AWS_XRAY_DAEMON_ADDRESS, behind which the rules "always" and "never" are. Out: two lines of
// JSON, how many of a hundred requests to each service are sampled, by the rules and then by the
// targets that turn them around. tests/python/sample.py does the same.

'use strict';

const xray = require('aws-xray-sdk-core');
const sampler = require('aws-xray-sdk-core/dist/lib/middleware/mw_utils').sampler;

xray.enableManualMode();

// The rule by which a request is sampled, or false.
function decide(serviceName) {
  return sampler.shouldSample({ host: 'h', httpMethod: 'GET', urlPath: '/', serviceName });
}

function count(name) {
  return Array.from({ length: 100 }, () => decide(name)).filter((rule) => rule === name).length;
}

async function main() {
  for (const turned of ['always', 'never']) {
    while (decide(turned) !== turned) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    console.log(JSON.stringify({ always: count('always'), never: count('never') }));
  }
}

main();
