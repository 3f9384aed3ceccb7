//! Traces on a developer's own machine: a model of them, and an X-Ray endpoint with a page.
//!
//! [`model`] is what `xray tail` needs too and is always there. [`endpoint`] and the page stand
//! behind the feature `endpoint`. Nothing here knows the daemon.

#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod model;
