//! The command line, by the rules of Go's `flag` package.
