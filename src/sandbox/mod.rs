//! An embedded X-Ray endpoint for the first run and for local work.
