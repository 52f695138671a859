//! States in a crate of their own, over events of another crate.

use es_kafka::{Aggregate, Command, Event, Fold};
use es_macros_renamed::{through_es_kafka, told};
use serde::{Deserialize, Serialize};

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = told::LampEvent, crate = es_kafka)]
struct Uses {
    #[fold(told::Lit => count)]
    lit: u64,
    dark: u64,
}

impl Fold<told::Dark> for Uses {
    fn fold(&mut self, _: told::Dark) {
        self.dark += 1;
    }
}

#[test]
fn another_crate_folds_the_events() {
    let mut uses = Uses::default();
    for event in [told::Lit { brightness: 3 }.into(), told::LampEvent::Dark, told::LampEvent::Lit { brightness: 4 }] {
        uses.apply(event);
    }
    assert_eq!((uses.lit, uses.dark), (2, 1));
}

#[test]
fn both_ways_to_the_name_work() {
    let (mut told_lamp, mut lamp) = (told::Lamp::default(), through_es_kafka::Lamp::default());
    told_lamp.apply(told::LampEvent::decode("Lit", 1, br#"{"brightness":3}"#).unwrap());
    lamp.apply(through_es_kafka::LampEvent::decode("Lit", 1, br#"{"brightness":3}"#).unwrap());
    assert_eq!((told_lamp.brightness, lamp.brightness), (3, 3));
    assert_eq!(through_es_kafka::name(&through_es_kafka::LampEvent::Dark), "Dark");
    assert_eq!(told::LampCommand::decode_tagged(br#"{"type":"Darken"}"#).unwrap(), told::LampCommand::Darken);
    assert_eq!(through_es_kafka::LampCommand::decode_tagged(br#"{"type":"Darken"}"#).unwrap(), through_es_kafka::LampCommand::Darken);
}
