//! The bank as a program: `bank run` serves on Kafka, `bank demo` shows itself on a broker in memory.

mod demo;

use bank::Account;
use es_kafka::App;

fn main() -> es_kafka::Exit {
    App::from_args().aggregate::<Account>().command(demo::command(), demo::run).run()
}
