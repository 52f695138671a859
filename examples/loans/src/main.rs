//! `loans --xes FILE` feeds an event log to the loan applications and prints the table; `loans run`, `loans verify` and the rest are those of
//! every application.

mod feed;

use es_kafka::App;
use loans::Loan;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> es_kafka::Exit {
    App::from_args().aggregate::<Loan>().default_command(feed::command(), feed::run).run()
}
