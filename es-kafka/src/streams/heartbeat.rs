//! StreamsGroupHeartbeat, version 0 (API key 88, KIP-1071).

use super::fields::{Reader, Writer};
use bytes::Bytes;
use es_core::membership::Tasks;

/// The request's API key.
pub(super) const KEY: i16 = 88;

/// The one subtopology of a component: it reads a topic into a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subtopology {
    /// Its name.
    pub id: String,
    /// The topic whose partitions are the tasks.
    pub source: String,
    /// The changelog topic of its store, and how the broker would create it. Without one it has no standbys.
    pub changelog: Option<(String, Vec<TopicConfig>)>,
}

/// A setting of a topic.
pub(crate) type TopicConfig = (String, String);

/// What a member tells of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberInfo {
    pub group: String,
    pub id: String,
    /// The process; its members share what it can bear.
    pub process: String,
    pub rack: Option<String>,
    /// How long it may take to give tasks up, in milliseconds.
    pub rebalance_timeout: i32,
    pub topology: Subtopology,
    /// Where it answers queries.
    pub endpoint: Option<(String, u16)>,
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatRequest<'a> {
    pub member: &'a MemberInfo,
    /// 0 joins, -1 leaves.
    pub epoch: i32,
    /// The newest endpoint epoch that came.
    pub endpoint_epoch: i32,
    /// What it holds; `None` where that has not changed.
    pub owned: Option<&'a Tasks>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HeartbeatResponse {
    pub error: i16,
    pub message: Option<String>,
    pub epoch: i32,
    /// In milliseconds.
    pub interval: i32,
    /// Codes and details.
    pub statuses: Vec<(i8, String)>,
    /// `None` where it has not changed.
    pub active: Option<Vec<i32>>,
    pub standby: Option<Vec<i32>>,
    pub endpoint_epoch: i32,
    /// Who has what; `None` where that has not changed.
    pub endpoints: Option<Vec<EndpointTasks>>,
}

/// The partitions of a process, by topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointTasks {
    pub endpoint: (String, u16),
    pub active: Vec<(String, Vec<i32>)>,
    pub standby: Vec<(String, Vec<i32>)>,
}

impl HeartbeatRequest<'_> {
    /// The request's body.
    pub(crate) fn encode(&self) -> Bytes {
        let (member, joins) = (self.member, self.epoch == es_core::membership::JOIN);
        let mut out = Writer::default();
        out.string(&member.group);
        out.string(&member.id);
        out.i32(self.epoch);
        out.i32(self.endpoint_epoch);
        out.optional_string(None); // InstanceId: static members are refused by 4.3
        out.optional_string(member.rack.as_deref().filter(|_| joins));
        out.i32(if joins { member.rebalance_timeout } else { -1 });
        match joins {
            true => write_topology(&mut out, &member.topology),
            false => out.i8(-1),
        }
        let tasks = |out: &mut Writer, tasks: Option<Vec<i32>>| match tasks {
            None => out.null(),
            Some(tasks) => {
                out.array(Some(tasks).into_iter().filter(|tasks| !tasks.is_empty()).collect::<Vec<_>>().into_iter(), |out, tasks| {
                    out.string(&member.topology.id);
                    out.array(tasks.into_iter(), Writer::i32);
                    out.end();
                })
            }
        };
        tasks(&mut out, self.owned.map(|owned| owned.active.iter().copied().collect()));
        tasks(&mut out, self.owned.map(|owned| owned.standby.iter().copied().collect()));
        tasks(&mut out, self.owned.map(|_| Vec::new())); // WarmupTasks: the broker gives none
        out.optional_string(joins.then_some(&member.process));
        match member.endpoint.as_ref().filter(|_| joins) {
            Some((host, port)) => {
                out.i8(1);
                out.string(host);
                out.u16(*port);
                out.end();
            }
            None => out.i8(-1),
        }
        match joins {
            true => out.array(std::iter::empty::<()>(), |_, ()| {}), // ClientTags
            false => out.null(),
        }
        out.null(); // TaskOffsets
        out.null(); // TaskEndOffsets
        out.i8(0); // ShutdownApplication
        out.end();
        out.0.freeze()
    }
}

fn write_topology(out: &mut Writer, topology: &Subtopology) {
    let nothing = |out: &mut Writer| out.array(std::iter::empty::<()>(), |_, ()| {});
    out.i8(1);
    out.i32(0); // Epoch: a topology cannot change yet
    out.array([topology].into_iter(), |out, topology| {
        out.string(&topology.id);
        out.array([&topology.source].into_iter(), |out, name| out.string(name));
        nothing(out); // SourceTopicRegex
        out.array(topology.changelog.iter(), |out, (name, configs)| {
            out.string(name);
            out.i32(0); // Partitions: as many as the source has
            out.i16(0); // ReplicationFactor: the broker's default
            out.array(configs.iter(), |out, (key, value)| {
                out.string(key);
                out.string(value);
                out.end();
            });
            out.end();
        });
        nothing(out); // RepartitionSinkTopics
        nothing(out); // RepartitionSourceTopics
        nothing(out); // CopartitionGroups
        out.end();
    });
    out.end();
}

impl HeartbeatResponse {
    /// Reads the response's body; `None` when it is none.
    pub(crate) fn decode(body: Bytes) -> Option<Self> {
        let mut read = Reader(body);
        read.i32()?; // ThrottleTimeMs
        let error = read.i16()?;
        let message = read.optional_string()?;
        read.string()?; // MemberId: the one that was sent
        let epoch = read.i32()?;
        let interval = read.i32()?;
        read.i32()?; // AcceptableRecoveryLag
        read.i32()?; // TaskOffsetIntervalMs
        let statuses = read.optional_array(|read| {
            let status = (read.i8()?, read.string()?);
            read.end()?;
            Some(status)
        })?;
        let active = read_tasks(&mut read)?;
        let standby = read_tasks(&mut read)?;
        read_tasks(&mut read)?; // WarmupTasks
        let endpoint_epoch = read.i32()?;
        let endpoints = read.optional_array(|read| {
            let endpoint = (read.string()?, read.u16()?);
            read.end()?;
            let assignment = EndpointTasks { endpoint, active: read.array(read_partitions)?, standby: read.array(read_partitions)? };
            read.end()?;
            Some(assignment)
        })?;
        read.end()?;
        let statuses = statuses.unwrap_or_default();
        Some(HeartbeatResponse { error, message, epoch, interval, statuses, active, standby, endpoint_epoch, endpoints })
    }
}

fn read_partitions(read: &mut Reader) -> Option<(String, Vec<i32>)> {
    let partitions = (read.string()?, read.array(Reader::i32)?);
    read.end()?;
    Some(partitions)
}

/// The partitions of all subtopologies: there is one.
fn read_tasks(read: &mut Reader) -> Option<Option<Vec<i32>>> {
    let tasks = read.optional_array(read_partitions)?;
    Some(tasks.map(|tasks| tasks.into_iter().flat_map(|(_, partitions)| partitions).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> MemberInfo {
        let configs = vec![("cleanup.policy".to_owned(), "compact".to_owned())];
        MemberInfo {
            group: "g".into(),
            id: "m".into(),
            process: "p".into(),
            rack: None,
            rebalance_timeout: 300_000,
            topology: Subtopology { id: "0".into(), source: "s".into(), changelog: Some(("c".into(), configs)) },
            endpoint: Some(("h".into(), 80)),
        }
    }

    #[test]
    fn a_join_tells_everything_and_owns_nothing() {
        let (member, nothing) = (member(), Tasks::default());
        let body = HeartbeatRequest { member: &member, epoch: 0, endpoint_epoch: 0, owned: Some(&nothing) }.encode();
        let mut expected = vec![2, b'g', 2, b'm', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x93, 0xe0];
        expected.extend([1, 0, 0, 0, 0, 2, 2, b'0', 2, 2, b's', 1, 2, 2, b'c', 0, 0, 0, 0, 0, 0, 2, 15]);
        expected.extend(b"cleanup.policy");
        expected.push(8);
        expected.extend(b"compact");
        expected.extend([0, 0, 1, 1, 1, 0, 0]);
        expected.extend([1, 1, 1, 2, b'p', 1, 2, b'h', 0, 80, 0, 1, 0, 0, 0, 0]);
        assert_eq!(body, expected);
    }

    #[test]
    fn a_later_heartbeat_tells_what_has_changed() {
        let (member, owned) = (member(), Tasks { active: [1, 2].into(), standby: [3].into() });
        let body = HeartbeatRequest { member: &member, epoch: 7, endpoint_epoch: 4, owned: Some(&owned) }.encode();
        let mut expected = vec![2, b'g', 2, b'm', 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff];
        expected.extend([2, 2, b'0', 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 2, 2, b'0', 2, 0, 0, 0, 3, 0, 1]);
        expected.extend([0, 0xff, 0, 0, 0, 0, 0]);
        assert_eq!(body, expected);
        let body = HeartbeatRequest { member: &member, epoch: 7, endpoint_epoch: 4, owned: None }.encode();
        assert_eq!(body[19..], [0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_is_read_and_one_that_is_cut_is_none() {
        let mut out = Writer::default();
        out.i32(0);
        out.i16(0);
        out.optional_string(None);
        out.string("m");
        out.i32(7);
        out.i32(5000);
        out.i32(0);
        out.i32(0);
        out.array([(1, "no topic s")].into_iter(), |out, (code, text)| {
            out.i8(code);
            out.string(text);
            out.end();
        });
        let list = |out: &mut Writer, id: &str, partitions: &[i32]| {
            out.string(id);
            out.array(partitions.iter(), |out, n| out.i32(*n));
            out.end();
        };
        out.array([()].into_iter(), |out, ()| list(out, "0", &[1, 2]));
        out.array(std::iter::empty::<()>(), |_, ()| {});
        out.null();
        out.i32(9);
        out.array([()].into_iter(), |out, ()| {
            out.string("h");
            out.u16(65_000);
            out.end();
            out.array([()].into_iter(), |out, ()| list(out, "s", &[1]));
            out.array(std::iter::empty::<()>(), |_, ()| {});
            out.end();
        });
        out.end();
        let whole = out.0.freeze();
        let read = HeartbeatResponse::decode(whole.clone()).unwrap();
        let endpoint = EndpointTasks { endpoint: ("h".into(), 65_000), active: vec![("s".into(), vec![1])], standby: vec![] };
        let expected = HeartbeatResponse {
            epoch: 7,
            interval: 5000,
            statuses: vec![(1, "no topic s".into())],
            active: Some(vec![1, 2]),
            standby: Some(vec![]),
            endpoint_epoch: 9,
            endpoints: Some(vec![endpoint]),
            ..HeartbeatResponse::default()
        };
        assert_eq!(read, expected);
        for length in 0..whole.len() {
            assert_eq!(HeartbeatResponse::decode(whole.slice(..length)), None, "cut at {length}");
        }
    }
}
