//! Queues on SQS and topics on SNS, against a server that speaks both.

mod credentials;
mod sns;
mod sqs;
