//! A request frame: its header, and the few fields of its body by which it is chosen.

use super::api::Api;
use super::wire::Fields;

/// What the proxy understands of a request. Fields that its kind has not, or that could not be read, are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which request.
    pub api: Api,
    /// In which version.
    pub version: i16,
    /// The number that its answer will bear.
    pub correlation: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// Whose transaction.
    pub transactional_id: Option<String>,
    /// The producer's id and epoch.
    pub producer: Option<(i64, i16)>,
    /// An EndTxn: true commits, false aborts.
    pub commit: Option<bool>,
    /// Which group.
    pub group: Option<String>,
}

impl Request {
    /// Reads a frame (without its length); `None` when it has no request's header.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut head = Fields::new(frame, 0, false);
        let (api, version, correlation) = (Api(head.i16()?), head.i16()?, head.i32()?);
        let client_id = head.plain_string()?.map(str::to_owned);
        let mut request =
            Request { api, version, correlation, client_id, transactional_id: None, producer: None, commit: None, group: None };
        let mut body = Fields::new(frame, head.at(), api.is_flexible(version));
        // A body that is not understood leaves its fields unknown; the frame passes all the same.
        if body.tags().is_some() {
            let _ = request.read_body(&mut body);
        }
        Some(request)
    }

    fn read_body(&mut self, body: &mut Fields) -> Option<()> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        match self.api {
            Api::PRODUCE if self.version >= 3 => self.transactional_id = owned(body.string()?),
            Api::INIT_PRODUCER_ID => {
                self.transactional_id = owned(body.string()?);
                body.i32()?;
                if self.version >= 3 {
                    self.producer = Some((body.i64()?, body.i16()?));
                }
            }
            Api::ADD_PARTITIONS_TO_TXN => {
                // From version 4 on it is what brokers send to each other, about several transactions: the first one is read.
                if self.version >= 4 && body.array()? == 0 {
                    return None;
                }
                self.transactional_id = owned(body.string()?);
                self.producer = Some((body.i64()?, body.i16()?));
            }
            Api::ADD_OFFSETS_TO_TXN => {
                self.transactional_id = owned(body.string()?);
                self.producer = Some((body.i64()?, body.i16()?));
                self.group = owned(body.string()?);
            }
            Api::END_TXN => {
                self.transactional_id = owned(body.string()?);
                self.producer = Some((body.i64()?, body.i16()?));
                self.commit = Some(body.i8()? != 0);
            }
            Api::TXN_OFFSET_COMMIT => {
                self.transactional_id = owned(body.string()?);
                self.group = owned(body.string()?);
                self.producer = Some((body.i64()?, body.i16()?));
            }
            Api::OFFSET_FETCH => {
                if self.version >= 8 && body.array()? == 0 {
                    return None;
                }
                self.group = owned(body.string()?);
            }
            Api::FIND_COORDINATOR => {
                let (key, kind) = match self.version {
                    0 => (body.string()?, 0),
                    1..=3 => (body.string()?, body.i8()?),
                    _ => {
                        let kind = body.i8()?;
                        (if body.array()? > 0 { body.string()? } else { None }, kind)
                    }
                };
                *(if kind == 1 { &mut self.transactional_id } else { &mut self.group }) = owned(key);
            }
            Api::JOIN_GROUP
            | Api::HEARTBEAT
            | Api::LEAVE_GROUP
            | Api::SYNC_GROUP
            | Api::CONSUMER_GROUP_HEARTBEAT
            | Api::STREAMS_GROUP_HEARTBEAT
            | Api::OFFSET_COMMIT => {
                self.group = owned(body.string()?);
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request's frame, for tests: header version 1, or 2 with its empty tagged fields.
    pub(in super::super) fn frame(api: Api, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(api.0.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(correlation.to_be_bytes());
        frame.extend([0, 2, b'm', b'e']);
        if api.is_flexible(version) {
            frame.push(0);
        }
        frame.extend(body);
        frame
    }

    fn plain(text: &str) -> Vec<u8> {
        [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn compact(text: &str) -> Vec<u8> {
        [&[text.len() as u8 + 1][..], text.as_bytes()].concat()
    }

    const PRODUCER: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 9, 0, 4];

    #[test]
    fn an_end_of_a_transaction_tells_whose_and_which_in_plain_and_flexible_versions() {
        for (version, id) in [(1, plain("shop")), (3, compact("shop"))] {
            for commit in [true, false] {
                let body = [&id[..], &PRODUCER, &[u8::from(commit)]].concat();
                let request = Request::parse(&frame(Api::END_TXN, version, 77, &body)).unwrap();
                assert_eq!((request.api, request.version, request.correlation), (Api::END_TXN, version, 77));
                assert_eq!(request.client_id.as_deref(), Some("me"));
                assert_eq!((request.transactional_id.as_deref(), request.producer), (Some("shop"), Some((9, 4))));
                assert_eq!(request.commit, Some(commit));
            }
        }
    }

    #[test]
    fn each_known_request_tells_its_transaction_and_its_group() {
        let check = |api, version, body: &[&[u8]], transaction: Option<&str>, group: Option<&str>| {
            let request = Request::parse(&frame(api, version, 1, &body.concat())).unwrap();
            let found = (request.transactional_id.as_deref(), request.group.as_deref());
            assert_eq!(found, (transaction, group), "{api} version {version}");
        };
        let (shop, team) = (Some("shop"), Some("team"));
        check(Api::PRODUCE, 7, &[&plain("shop"), &[0; 6]], shop, None);
        check(Api::PRODUCE, 10, &[&compact("shop"), &[0; 6]], shop, None);
        check(Api::PRODUCE, 10, &[&[0]], None, None);
        check(Api::INIT_PRODUCER_ID, 4, &[&compact("shop"), &[0; 4], &PRODUCER], shop, None);
        check(Api::ADD_PARTITIONS_TO_TXN, 0, &[&plain("shop"), &PRODUCER], shop, None);
        check(Api::ADD_OFFSETS_TO_TXN, 0, &[&plain("shop"), &PRODUCER, &plain("team")], shop, team);
        check(Api::TXN_OFFSET_COMMIT, 3, &[&compact("shop"), &compact("team"), &PRODUCER], shop, team);
        check(Api::TXN_OFFSET_COMMIT, 0, &[&plain("shop"), &plain("team"), &PRODUCER], shop, team);
        check(Api::OFFSET_FETCH, 7, &[&compact("team")], None, team);
        check(Api::OFFSET_FETCH, 8, &[&[2], &compact("team")], None, team);
        check(Api::FIND_COORDINATOR, 2, &[&plain("shop"), &[1]], shop, None);
        check(Api::FIND_COORDINATOR, 2, &[&plain("team"), &[0]], None, team);
        check(Api::FIND_COORDINATOR, 4, &[&[0, 2], &compact("team")], None, team);
        check(Api::HEARTBEAT, 3, &[&plain("team")], None, team);
        check(Api::JOIN_GROUP, 5, &[&plain("team")], None, team);
        check(Api::SYNC_GROUP, 3, &[&plain("team")], None, team);
        check(Api::CONSUMER_GROUP_HEARTBEAT, 1, &[&compact("team")], None, team);
        check(Api::STREAMS_GROUP_HEARTBEAT, 0, &[&compact("team")], None, team);
        check(Api::OFFSET_COMMIT, 9, &[&compact("team")], None, team);
        check(Api(3), 1, &[&[0xff; 20]], None, None);
    }

    #[test]
    fn a_broken_body_leaves_its_fields_unknown_and_a_broken_header_is_no_request() {
        let request = Request::parse(&frame(Api::END_TXN, 1, 5, &[0, 9, b'x'])).unwrap();
        assert_eq!((request.api, request.transactional_id, request.commit), (Api::END_TXN, None, None));
        assert_eq!(Request::parse(&[0, 26, 0, 1, 0]), None);
    }
}
