//! Events and commands in a crate that knows es-core by another name.

use serde::{Deserialize, Serialize};

/// Told the name by `crate = …`.
pub mod told {
    use es_kafka::{Aggregate, Command, event};

    /// The events.
    #[event(aggregate = "lamp", crate = es_kafka)]
    #[derive(Clone, Debug, PartialEq)]
    pub enum LampEvent {
        /// It went on.
        Lit {
            /// How bright.
            brightness: u8,
        },
        /// It went off.
        Dark,
    }

    /// The state.
    #[derive(Aggregate, Default, Clone, super::Serialize, super::Deserialize)]
    #[aggregate(id = String, event = LampEvent, ignores(Dark), crate = es_kafka)]
    pub struct Lamp {
        /// How bright.
        #[fold(Lit => add(brightness))]
        pub brightness: u8,
    }

    /// The commands.
    #[derive(Command, Debug, PartialEq)]
    #[command(crate = es_kafka)]
    pub enum LampCommand {
        /// Go off.
        Darken,
    }
}

/// The face of es-kafka: all of es-core, and the macros that generate its own name in place of es-core's.
pub mod face {
    pub use es_kafka::__private::{AggregateEsKafka as Aggregate, CommandEsKafka as Command, event_es_kafka as event};
    pub use es_kafka::*;
}

/// With the macros of es-kafka.
pub mod through_es_kafka {
    use crate::face::{Aggregate, Command, Event, event};

    /// The events.
    #[event(aggregate = "lamp")]
    #[derive(Clone, Debug, PartialEq)]
    pub enum LampEvent {
        /// It went on.
        Lit {
            /// How bright.
            brightness: u8,
        },
        /// It went off.
        Dark,
    }

    /// The state.
    #[derive(Aggregate, Default, Clone, super::Serialize, super::Deserialize)]
    #[aggregate(id = String, event = LampEvent, ignores(Dark))]
    pub struct Lamp {
        /// How bright.
        #[fold(Lit => add(brightness))]
        pub brightness: u8,
    }

    /// The name of an event: derives and traits have one name each.
    pub fn name(event: &<Lamp as crate::face::Folds>::Event) -> &'static str {
        const { assert!(<Lamp as Aggregate>::VERSION == 1) };
        event.event_type().name
    }

    /// The commands.
    #[derive(Command, Debug, PartialEq)]
    pub enum LampCommand {
        /// Go off.
        Darken,
    }
}
