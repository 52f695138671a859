//! Loans: the applications of a real event log as aggregates, and a table of what was read back from the log and the store.
//!
//! | what | where |
//! |---|---|
//! | the aggregate and its rules | [`loan`] |
//! | the words of the log | [`activity`] |
//! | the reader of XES files | [`xes`] |
//! | the table | [`table`] |

pub mod activity;
pub mod loan;
pub mod table;
pub mod xes;

pub use loan::Loan;
