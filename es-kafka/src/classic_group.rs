//! A classic consumer group as the broker describes it.
//!
//! By DescribeGroups, which librdkafka calls `list_groups`. Its newer DescribeConsumerGroups ends the process by a failed assertion when the coordinator cannot be reached
//! in time (librdkafka #4605; seen with 2.12.1).

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaResult;
use std::time::Duration;

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Whether no rebalance is under way: only then do members have something.
    pub(crate) stable: bool,
    pub(crate) members: Vec<Member>,
}

/// A member of a group, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) client_id: String,
    /// Topics and partitions; none where they cannot be read.
    pub(crate) partitions: Vec<(String, i32)>,
}

/// Asks for a group; waits for the answer. One that nobody has joined yet has no members.
///
/// # Errors
/// When no broker answers in time, or one refuses.
pub(crate) fn describe<C: ClientContext>(client: &Client<C>, group: &str, wait: Duration) -> KafkaResult<Group> {
    let list = client.fetch_group_list(Some(group), wait)?;
    let Some(found) = list.groups().iter().find(|found| found.name() == group) else {
        return Ok(Group { stable: false, members: Vec::new() });
    };
    let members = found.members().iter().map(|member| Member {
        id: member.id().to_owned(),
        client_id: member.client_id().to_owned(),
        partitions: member.assignment().and_then(assignment).unwrap_or_default(),
    });
    Ok(Group { stable: found.state() == "Stable", members: members.collect() })
}

/// Reads an assignment of the consumer protocol: a version, and for each topic its name and partitions. What follows, a user's data, is passed over.
fn assignment(mut bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let bytes = &mut bytes;
    take(bytes, 2)?;
    let mut found = Vec::new();
    for _ in 0..number(bytes)? {
        let length = u16::from_be_bytes(take(bytes, 2)?.try_into().ok()?);
        let topic = std::str::from_utf8(take(bytes, length.into())?).ok()?;
        for _ in 0..number(bytes)? {
            found.push((topic.to_owned(), number(bytes)?));
        }
    }
    Some(found)
}

fn number(bytes: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::assignment;

    #[test]
    fn an_assignment_is_read_and_rubbish_is_not() {
        let bytes = b"\0\x01\0\0\0\x02\0\x02in\0\0\0\x02\0\0\0\x03\0\0\0\x05\0\x01x\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(assignment(bytes), Some(vec![("in".to_owned(), 3), ("in".to_owned(), 5)]));
        assert_eq!(assignment(b"\0\0\0\0\0\0\0\0\0\0"), Some(Vec::new()));
        for cut in 0..bytes.len() - 4 {
            assert_eq!(assignment(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(assignment(&[0xff; 40]), Some(Vec::new()), "a negative count is none");
    }
}
