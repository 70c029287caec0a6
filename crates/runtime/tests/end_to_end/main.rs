//! The runtime as its callers see it: real guests and native handlers, honest and hostile.

mod deployments;
mod documents;
mod examples;
mod guests;
mod isolation;
mod limits;
mod native;
mod outgoing;
mod support;
