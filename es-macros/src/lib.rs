//! Macros, under construction.
