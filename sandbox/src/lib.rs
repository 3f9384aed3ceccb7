//! A local X-Ray endpoint with a web page, and the model of traces that it shares with `xray tail`.
//!
//! The crate has two halves. [`model`] parses segment documents and spans of OpenTelemetry, checks
//! them, stores them by trace and draws a trace as a tree of text. The model is always compiled.
//! [`endpoint`] answers HTTP requests like the service does, and serves the page. The endpoint and
//! the page are compiled only with the feature `endpoint`, which is on by default. The crate does
//! not use the daemon's code: the daemon calls it.
//!
//! ```text
//!   requests of the daemon, SDKs, AWS CLI, browser            segments that `xray tail` reads
//!                     │                                                      │
//! ┌───────────────────▼────────────────────────────────────────┐             │
//! │ endpoint/   (feature `endpoint`)                           │             │
//! │                                                            │             │
//! │   guard ──► route ──► signature ──► api/                   │             │
//! │   Host,     path,     AWS Signature one file for each      │             │
//! │   Origin    method    Version 4     group of calls         │             │
//! │               │                       │                    │             │
//! │               ▼                       ▼                    │             │
//! │             asset                   filter/, search/,      │             │
//! │             the files of page/      graph/, sampling/,     │             │
//! │                                     refused, trace_file/   │             │
//! └───────────────────────────────────────┬────────────────────┘             │
//!                                         │                                  │
//! ┌───────────────────────────────────────▼──────────────────────────────────▼───┐
//! │ model/                                                                       │
//! │                                                                              │
//! │   document/ ───────► store/ ───────► forest/ ───────────► tree/              │
//! │   parses and         traces by       builds the trees     draws them as      │
//! │   checks one         id, bounded     of a trace, for      text for a         │
//! │   document                           page and terminal    terminal           │
//! └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The page is in `sandbox/page`: modules of JavaScript, style sheets and HTML. There is no build
//! step, and the binary contains the files as they are.
//!
//! Build and test the crate alone, with and without the endpoint:
//!
//! ```text
//! cargo test -p xrayd-sandbox
//! cargo test -p xrayd-sandbox --no-default-features
//! ```

#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod model;
