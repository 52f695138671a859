//! Answers that the proxy makes up: the broker never sees the request, as when it was sent to a coordinator that has just moved.

use super::api::{Api, ErrorCode};
use super::request::Request;
use super::wire::Fields;

/// The answer to a request (its whole frame in `bytes`) with this error; `None` when the proxy has none for it.
pub(super) fn refusal(request: &Request, bytes: &[u8], code: ErrorCode) -> Option<Vec<u8>> {
    let (api, version) = (request.api, request.version);
    let flexible = api.is_flexible(version);
    let mut answer = Answer { bytes: request.correlation.to_be_bytes().to_vec(), flexible };
    answer.tags();
    match api {
        Api::END_TXN | Api::ADD_OFFSETS_TO_TXN => {
            answer.i32(0);
            answer.i16(code.0);
        }
        Api::INIT_PRODUCER_ID => {
            answer.i32(0);
            answer.i16(code.0);
            answer.i64(-1);
            answer.i16(-1);
        }
        Api::HEARTBEAT | Api::SYNC_GROUP if version <= 4 => {
            if version >= 1 {
                answer.i32(0);
            }
            answer.i16(code.0);
            if api == Api::SYNC_GROUP {
                // No assignment: bytes, with the length of an array.
                answer.array(0);
            }
        }
        Api::JOIN_GROUP if version <= 6 => {
            if version >= 2 {
                answer.i32(0);
            }
            answer.i16(code.0);
            answer.i32(-1);
            // Protocol, leader, member.
            (0..3).for_each(|_| answer.string(""));
            answer.array(0);
        }
        Api::CONSUMER_GROUP_HEARTBEAT => {
            answer.i32(0);
            answer.i16(code.0);
            // No message, no member id; epoch, interval; no assignment.
            answer.bytes.extend([0, 0]);
            answer.i32(0);
            answer.i32(0);
            answer.bytes.push(0xff);
        }
        Api::FIND_COORDINATOR if version <= 3 => {
            if version >= 1 {
                answer.i32(0);
            }
            answer.i16(code.0);
            if version >= 1 {
                answer.string("");
            }
            answer.i32(-1);
            answer.string("");
            answer.i32(-1);
        }
        Api::ADD_PARTITIONS_TO_TXN | Api::TXN_OFFSET_COMMIT => {
            let topics = topics(request, bytes)?;
            answer.i32(0);
            answer.array(topics.len());
            for (topic, partitions) in topics {
                answer.string(topic);
                answer.array(partitions.len());
                for partition in partitions {
                    answer.i32(partition);
                    answer.i16(code.0);
                    answer.tags();
                }
                answer.tags();
            }
        }
        _ => return None,
    }
    answer.tags();
    Some(answer.bytes)
}

/// The topics and partitions that a request names.
fn topics<'a>(request: &Request, bytes: &'a [u8]) -> Option<Vec<(&'a str, Vec<i32>)>> {
    let (api, version) = (request.api, request.version);
    if api == Api::ADD_PARTITIONS_TO_TXN && version > 3 {
        return None;
    }
    let mut fields = Fields::new(bytes, 8, false);
    fields.plain_string()?;
    let mut fields = Fields::new(bytes, fields.at(), api.is_flexible(version));
    fields.tags()?;
    fields.string()?;
    if api == Api::TXN_OFFSET_COMMIT {
        fields.string()?;
    }
    // The producer's id and epoch.
    fields.skip(10)?;
    if api == Api::TXN_OFFSET_COMMIT && version >= 3 {
        fields.i32()?;
        fields.string()?;
        fields.string()?;
    }
    let mut topics = Vec::new();
    for _ in 0..fields.array()? {
        let topic = fields.string()??;
        let mut partitions = Vec::new();
        for _ in 0..fields.array()? {
            partitions.push(fields.i32()?);
            if api == Api::TXN_OFFSET_COMMIT {
                fields.i64()?;
                if version >= 2 {
                    fields.i32()?;
                }
                fields.string()?;
                fields.tags()?;
            }
        }
        fields.tags()?;
        topics.push((topic, partitions));
    }
    Some(topics)
}

/// An answer as it is written.
struct Answer {
    bytes: Vec<u8>,
    flexible: bool,
}

impl Answer {
    fn i16(&mut self, value: i16) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn array(&mut self, count: usize) {
        if self.flexible { self.varint(count + 1) } else { self.i32(count as i32) }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() + 1)
        } else {
            self.i16(text.len() as i16)
        }
        self.bytes.extend(text.as_bytes());
    }

    fn tags(&mut self) {
        if self.flexible {
            self.bytes.push(0);
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::error_places;
    use super::super::request::tests::frame;
    use super::*;

    #[test]
    fn refusals_bear_the_error_where_an_answer_has_it() {
        const CODE: ErrorCode = ErrorCode::NOT_COORDINATOR;
        let check = |api, version, body: &[u8], errors: usize| {
            let bytes = frame(api, version, 0x01020304, body);
            let request = Request::parse(&bytes).unwrap();
            let answer = refusal(&request, &bytes, CODE).unwrap();
            assert_eq!(answer[..4], [1, 2, 3, 4]);
            let places = error_places(api, version, &answer).unwrap();
            assert_eq!(places.len(), errors, "{api} version {version}");
            assert!(places.iter().all(|at| answer[*at..at + 2] == CODE.0.to_be_bytes()), "{api} version {version}: {answer:?}");
        };
        check(Api::END_TXN, 1, &[], 1);
        check(Api::END_TXN, 3, &[], 1);
        check(Api::ADD_OFFSETS_TO_TXN, 0, &[], 1);
        check(Api::INIT_PRODUCER_ID, 4, &[], 1);
        check(Api::HEARTBEAT, 3, &[], 1);
        check(Api::SYNC_GROUP, 3, &[], 1);
        check(Api::JOIN_GROUP, 5, &[], 1);
        check(Api::FIND_COORDINATOR, 2, &[], 1);
        check(Api::CONSUMER_GROUP_HEARTBEAT, 1, &[], 1);
        // Id "a", producer; one topic "t" with partitions 0 and 1.
        let partitions = [0, 0, 0, 0, 0, 0, 0, 1];
        let body = [&[0, 1, b'a'][..], &[0; 10], &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2], &partitions].concat();
        check(Api::ADD_PARTITIONS_TO_TXN, 0, &body, 2);
        // Id "a", group "g", producer; generation, member, no instance; one topic "t" with one partition.
        let body = [&[2, b'a', 2, b'g'][..], &[0; 10], &[0, 0, 0, 1, 2, b'm', 0], &[2, 2, b't', 2], &[0; 16], &[1, 0, 0, 0]].concat();
        check(Api::TXN_OFFSET_COMMIT, 3, &body, 1);
    }

    #[test]
    fn what_has_no_refusal_passes() {
        let bytes = frame(Api::FETCH, 11, 1, &[]);
        assert_eq!(refusal(&Request::parse(&bytes).unwrap(), &bytes, ErrorCode::NOT_COORDINATOR), None);
    }
}
