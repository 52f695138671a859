//! The whole engine on the broker in memory: commands in, events, changelog and offsets out, state in a store in memory.

use bank::Account;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use es_core::envelope::HeaderStyle;
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::{Changelog, Settings};
use es_testkit::TestApp;
use es_testkit::app::PARTITIONS;

const COMMANDS: u64 = 20_000;

fn loaded(settings: Settings) -> TestApp<Account> {
    let app = TestApp::<Account>::start_with(settings);
    let mut batch = RecordBatch::new();
    for n in 0..COMMANDS {
        let key = format!("acct-{:011}", n * 7919 % 10_000);
        let value = format!(r#"{{"type":"Deposit","amount":{},"memo":"about as long as commands are"}}"#, 1 + n % 100);
        batch.push(Place::new(Role::Commands, partition_of(key.as_bytes(), PARTITIONS)), 0).key(key.as_bytes()).value(value.as_bytes());
    }
    app.cluster().produce_batch(app.topic(Role::Commands), &batch).expect("the topic exists");
    app
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(COMMANDS)).sample_size(10);
    let compact = Settings { headers: HeaderStyle::Compact, ..Settings::default() };
    let bare = Settings { changelog: Changelog::Off, ..compact.clone() };
    for (name, settings) in [("full headers", Settings::default()), ("compact headers", compact), ("compact, no changelog", bare)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || loaded(settings.clone()),
                |mut app| {
                    app.settle();
                    assert_eq!(app.stats().committed_inputs, COMMANDS);
                    app
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
