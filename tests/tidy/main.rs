//! The rules of the code that no compiler checks.
//!
//! Each file here holds one kind of rule, and plants what breaks it to show that it is seen.

mod comments;
mod direction;
mod files;
mod graph;
mod source;
mod words;
