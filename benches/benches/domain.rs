//! What a decision costs: decide, fold, and the codecs of events, commands and entries.

use bank::{Account, AccountCommand, AccountEvent, Deposited};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use es_core::task::entry::Entry;
use es_core::task::layout;
use es_core::{Aggregate, Command, Context, Decide, Event};
use std::hint::black_box;

fn domain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("domain");
    group.throughput(Throughput::Elements(1));
    let account = Account { balance: 100, ..Account::default() };
    let context = Context { aggregate_id: "acct-00000000001", command_id: "c", time: 0, sequence: 1 };
    let command = AccountCommand::Deposit { amount: 5 };
    group.bench_function("decide", |b| b.iter(|| account.decide(black_box(&command), &context)));
    group.bench_function("fold", |b| {
        b.iter(|| {
            let mut next = account.clone();
            next.apply(black_box(AccountEvent::Deposited { amount: 5 }));
            next
        });
    });

    let event = AccountEvent::from(Deposited { amount: 5 });
    let (mut payload, mut buffer) = (Vec::new(), Vec::new());
    event.encode(&mut payload).expect("it can be written");
    group.bench_function("event: write JSON", |b| {
        b.iter(|| {
            buffer.clear();
            event.encode(&mut buffer)
        });
    });
    group.bench_function("event: read JSON", |b| b.iter(|| AccountEvent::decode("Deposited", 1, black_box(&payload))));
    let plain = br#"{"type":"Deposit","amount":5,"memo":"a memo that makes it as long as commands are, 107 bytes in all, or so"}"#;
    group.bench_function("command: read plain JSON", |b| b.iter(|| AccountCommand::decode_tagged(black_box(plain))));

    let entry = Entry { sequence: 7, state: account, present: true, ..Entry::default() };
    let mut bytes = Vec::new();
    layout::write(&entry, &mut bytes).expect("it can be written");
    group.bench_function("entry: write postcard", |b| {
        b.iter(|| {
            buffer.clear();
            layout::write(black_box(&entry), &mut buffer)
        });
    });
    group.bench_function("entry: read postcard", |b| b.iter(|| layout::read::<Entry<Account>>(black_box(&bytes))));
}

criterion_group!(benches, domain);
criterion_main!(benches);
