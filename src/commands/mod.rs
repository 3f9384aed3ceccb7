//! The commands that look at a daemon or its surroundings, and end.

pub mod tail;
pub mod verify;
