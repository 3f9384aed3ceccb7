//! Rules for the code and the texts that no compiler checks.
//!
//! Each file here holds one kind of rule. Its tests also plant text that breaks the rule, to show
//! that the rule sees it.

mod comments;
mod direction;
mod files;
mod graph;
mod patches;
mod phrases;
mod source;
mod words;
