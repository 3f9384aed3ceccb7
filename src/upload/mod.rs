//! Upload.
mod body;
mod classify;
mod retry;
mod sign;
