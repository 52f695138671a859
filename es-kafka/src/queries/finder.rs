//! Learns which process has which partition, where nobody tells it by itself.

use crate::admin::Admin;
use crate::config::{GroupProtocol, endpoint_of};
use crate::connection::Connection;
use crate::directory::{Directory, Owner};
use crate::ffi::describe::Member;
use crate::settings::{GroupChoice, Settings};
use es_core::broker::{BrokerError, ErrorKind};
use es_core::topology::Topology;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A group is described no more often than this.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a description may take.
const WAIT: Duration = Duration::from_secs(5);

/// Keeps the [`Directory`] up to date.
///
/// The members of classic and KIP-848 groups tell their endpoints in their `client.id`; who has which partition the group's coordinator says when it is asked to
/// describe the group. It is asked when an owner is not known, or is none any more.
pub(crate) struct Finder {
    pub(crate) directory: Directory,
    source: Source,
    /// When each component's group was looked at; the lock is held meanwhile, so that one look serves all who want it.
    looked: BTreeMap<String, Mutex<Option<Instant>>>,
}

enum Source {
    /// Kafka's coordinator describes the groups.
    Groups(Arc<Admin>, GroupProtocol),
    /// The members of a streams group are told by its coordinator, and keep the directory up to date themselves.
    Told,
    /// All processes are in this one.
    #[cfg(feature = "embedded")]
    Embedded(crate::embedded::Embedded),
}

impl Finder {
    /// # Errors
    /// When a setting is wrong.
    pub(crate) fn new<'a>(
        settings: &Settings,
        connection: &Connection,
        components: impl Iterator<Item = &'a String>,
        directory: Directory,
    ) -> Result<Self, BrokerError> {
        let source = match connection {
            Connection::Kafka if settings.group_protocol == GroupChoice::Is(GroupProtocol::Streams) => Source::Told,
            Connection::Kafka => {
                Source::Groups(Arc::new(Admin::new(&settings.bootstrap_servers, &settings.kafka, WAIT)?), protocol_of(settings))
            }
            #[cfg(feature = "embedded")]
            Connection::Embedded(embedded) => Source::Embedded(embedded.clone()),
        };
        Ok(Finder { directory, source, looked: components.map(|name| (name.clone(), Mutex::default())).collect() })
    }

    /// Looks where the component's partitions are, unless that was done a moment ago.
    pub(crate) async fn look(&self, topology: &Topology) {
        let Some(looked) = self.looked.get(&topology.component) else { return };
        let mut looked = looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        if matches!(self.source, Source::Told) {
            return;
        }
        match self.owners(topology).await {
            Ok(owners) => self.directory.update(&topology.component, owners),
            Err(error) => tracing::warn!(component = topology.component, %error, "the group could not be described: an owner is not known"),
        }
        *looked = Some(Instant::now());
    }

    async fn owners(&self, topology: &Topology) -> Result<Vec<Owner>, BrokerError> {
        match &self.source {
            Source::Groups(admin, protocol) => {
                let (admin, group, protocol) = (admin.clone(), topology.group(), *protocol);
                let input = topology.topic(topology.input()).unwrap_or_default().to_owned();
                let described = tokio::task::spawn_blocking(move || admin.members(&group, protocol));
                let members = match tokio::time::timeout(2 * WAIT, described).await {
                    Ok(Ok(members)) => members?,
                    Ok(Err(error)) => return Err(BrokerError::new(ErrorKind::Retriable, error.to_string())),
                    Err(_) => return Err(BrokerError::new(ErrorKind::Retriable, "it takes too long")),
                };
                let owner = |(client_id, partitions): Member| {
                    let endpoint = endpoint_of(&client_id)?.to_owned();
                    let active = partitions.into_iter().filter(|(topic, _)| *topic == input).map(|(_, partition)| partition).collect();
                    Some(Owner { endpoint, active, standby: Vec::new() })
                };
                Ok(members.into_iter().filter_map(owner).collect())
            }
            Source::Told => Ok(Vec::new()),
            #[cfg(feature = "embedded")]
            Source::Embedded(embedded) => Ok(embedded.owners(&topology.group())),
        }
    }
}

/// The protocol of the groups, which is chosen before anything is served.
fn protocol_of(settings: &Settings) -> GroupProtocol {
    match settings.group_protocol {
        GroupChoice::Is(protocol) => protocol,
        GroupChoice::Auto => GroupProtocol::default(),
    }
}
