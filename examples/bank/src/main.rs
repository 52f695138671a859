//! The bank as a program: `bank run` serves on Kafka, `bank demo` shows itself on a broker in memory.

mod demo;

use bank::Account;
use es_kafka::App;

/// For librdkafka too, which allocates for each record and header: a fifth less CPU than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> es_kafka::Exit {
    App::from_args().aggregate::<Account>().command(demo::command(), demo::run).run()
}
