// An application with the X-Ray SDK for Node.js that calls its sampler, as a program.
//
// In: AWS_XRAY_DAEMON_ADDRESS of a daemon whose service has the rules "always" and "never". Out:
// two lines of JSON. Each has, for each of two services, the number of sampled requests among 100.
// The first line follows the rules; the second follows the targets, which reverse the rules.
// tests/python/sample.py does the same.

'use strict';

const xray = require('aws-xray-sdk-core');
const sampler = require('aws-xray-sdk-core/dist/lib/middleware/mw_utils').sampler;

xray.enableManualMode();

// Returns the name of the rule that samples a request to this service, or false if the request is
// not sampled.
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
