// An application with OpenTelemetry's remote sampler for X-Ray, as a program.
//
// In: the URL of the TCP port of a daemon whose service has the rules "always" and "never". Out:
// two lines of JSON. Each has, for each of two services, the number of sampled requests among 100.
// The first line follows the rules; the second follows the targets, which reverse the rules.
// tests/python/sample.py does the same with the X-Ray SDK.

'use strict';

const { randomBytes } = require('node:crypto');
const { ROOT_CONTEXT, SpanKind } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { AWSXRayRemoteSampler } = require('@opentelemetry/sampler-aws-xray');

const endpoint = process.argv[2];
const RECORD_AND_SAMPLED = 2;

// A rule applies to the name of the service, which belongs to the sampler's resource.
function sampler(service) {
  const resource = resourceFromAttributes({ 'service.name': service });
  return new AWSXRayRemoteSampler({ resource, endpoint });
}

function count(sampler) {
  const decide = () =>
    sampler.shouldSample(
      ROOT_CONTEXT,
      randomBytes(16).toString('hex'),
      'GET',
      SpanKind.SERVER,
      {},
      [],
    ).decision;
  return Array.from({ length: 100 }, decide).filter((made) => made === RECORD_AND_SAMPLED).length;
}

async function main() {
  const samplers = { always: sampler('always'), never: sampler('never') };
  for (const [turned, other] of [['always', 'never'], ['never', 'always']]) {
    // Without rules, the sampler samples only the first request of a second and a part of the
    // others. All of 100 requests are sampled only by a rule or a target.
    while (count(samplers[turned]) !== 100 || count(samplers[other]) !== 0) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const counts = { always: count(samplers.always), never: count(samplers.never) };
    console.log(JSON.stringify(counts));
  }
  Object.values(samplers).forEach((sampler) => sampler.stopPollers());
}

main();
