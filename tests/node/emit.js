// An application with the X-Ray SDK for Node.js, as a program.
//
// In: a list of segments as JSON, each {"name", "annotations", "metadata", "flags", "exception",
// "subsegments"}, where only the name is required; and AWS_XRAY_DAEMON_ADDRESS. Out: the segments
// of the SDK, each with its own trace. tests/python/emit.py does the same.

'use strict';

const xray = require('aws-xray-sdk-core');

// Every segment is sent, and the SDK does not fetch rules.
xray.middleware.disableCentralizedSampling();
xray.middleware.setSamplingRules({ version: 2, default: { fixed_target: 0, rate: 1 }, rules: [] });
xray.enableManualMode();

const FLAGS = { error: 'addErrorFlag', throttle: 'addThrottleFlag', fault: 'addFaultFlag' };

function fill(entity, described) {
  const { annotations = {}, metadata = {}, flags = [], subsegments = [], exception } = described;
  Object.entries(annotations).forEach(([key, value]) => entity.addAnnotation(key, value));
  Object.entries(metadata).forEach(([key, value]) => entity.addMetadata(key, value));
  flags.forEach((flag) => entity[FLAGS[flag]]());
  // All subsegments are open at the same time, as in nested calls. Otherwise the SDK does not
  // stream them in separate documents.
  const open = subsegments.map((subsegment) => entity.addNewSubsegment(subsegment.name));
  open.forEach((subsegment, index) => fill(subsegment, subsegments[index]));
  entity.close(exception === undefined ? undefined : new Error(exception));
}

for (const described of JSON.parse(process.argv[2])) {
  fill(new xray.Segment(described.name), described);
}
