//! An answer's error codes: where they are in each kind of answer, so that they can be falsified in place.

use super::api::{Api, ErrorCode};
use super::wire::Fields;

/// Where the error codes are in an answer (a frame without its length); `None` when the proxy does not know this kind of answer, or
/// cannot read it.
pub(super) fn error_places(api: Api, version: i16, frame: &[u8]) -> Option<Vec<usize>> {
    let mut fields = Fields::new(frame, 4, api.is_flexible(version));
    // The header's tagged fields, then the body.
    fields.tags()?;
    let throttled = |from| version >= from;
    match api {
        Api::END_TXN | Api::ADD_OFFSETS_TO_TXN | Api::INIT_PRODUCER_ID | Api::CONSUMER_GROUP_HEARTBEAT | Api::STREAMS_GROUP_HEARTBEAT => {
            one(&mut fields, true)
        }
        Api::HEARTBEAT | Api::SYNC_GROUP | Api::LEAVE_GROUP => one(&mut fields, throttled(1)),
        Api::JOIN_GROUP => one(&mut fields, throttled(2)),
        Api::FETCH if version >= 7 => one(&mut fields, true),
        Api::FIND_COORDINATOR if version < 4 => one(&mut fields, throttled(1)),
        Api::FIND_COORDINATOR => coordinators(&mut fields),
        Api::ADD_PARTITIONS_TO_TXN if version < 4 => {
            fields.i32()?;
            in_partitions(&mut fields, |_| Some(()))
        }
        Api::TXN_OFFSET_COMMIT => {
            fields.i32()?;
            in_partitions(&mut fields, |_| Some(()))
        }
        // Up to version 12 a topic is named.
        Api::PRODUCE if version <= 12 => in_partitions(&mut fields, |fields| {
            fields.skip(8)?;
            if version >= 2 {
                fields.skip(8)?;
            }
            if version >= 5 {
                fields.skip(8)?;
            }
            if version >= 8 {
                for _ in 0..fields.array()? {
                    fields.i32()?;
                    fields.string()?;
                    fields.tags()?;
                }
                fields.string()?;
            }
            Some(())
        }),
        Api::OFFSET_FETCH => offsets(&mut fields, version),
        _ => None,
    }
}

/// Puts `code` wherever the answer tells an error or its absence; false when the answer is not understood and was left as it is.
pub(super) fn falsify(api: Api, version: i16, frame: &mut [u8], code: ErrorCode) -> bool {
    let Some(places) = error_places(api, version, frame) else { return false };
    for at in &places {
        frame[*at..at + 2].copy_from_slice(&code.0.to_be_bytes());
    }
    !places.is_empty()
}

/// The first error in an answer, or that there is none; `None` when the answer is not understood.
pub(super) fn error_of(api: Api, version: i16, frame: &[u8]) -> Option<ErrorCode> {
    let places = error_places(api, version, frame)?;
    let mut codes = places.iter().map(|at| ErrorCode(i16::from_be_bytes([frame[*at], frame[at + 1]])));
    Some(codes.find(|code| *code != ErrorCode::NONE).unwrap_or(ErrorCode::NONE))
}

fn place(fields: &mut Fields) -> Option<usize> {
    let at = fields.at();
    fields.i16()?;
    Some(at)
}

/// One error for all, behind the time for which the client is throttled.
fn one(fields: &mut Fields, throttled: bool) -> Option<Vec<usize>> {
    if throttled {
        fields.i32()?;
    }
    Some(vec![place(fields)?])
}

/// `[topic, [partition, error, rest]]`
fn in_partitions(fields: &mut Fields, rest: impl Fn(&mut Fields) -> Option<()>) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    for _ in 0..fields.array()? {
        fields.string()?;
        for _ in 0..fields.array()? {
            fields.i32()?;
            places.push(place(fields)?);
            rest(fields)?;
            fields.tags()?;
        }
        fields.tags()?;
    }
    Some(places)
}

fn coordinators(fields: &mut Fields) -> Option<Vec<usize>> {
    fields.i32()?;
    let mut places = Vec::new();
    for _ in 0..fields.array()? {
        // Key, node, host, port.
        fields.string()?;
        fields.i32()?;
        fields.string()?;
        fields.i32()?;
        places.push(place(fields)?);
        fields.string()?;
        fields.tags()?;
    }
    Some(places)
}

/// The errors of whole groups; those of single partitions are left as they are. Version 10 names topics by their ids.
fn offsets(fields: &mut Fields, version: i16) -> Option<Vec<usize>> {
    let topics = |fields: &mut Fields| {
        for _ in 0..fields.array()? {
            if version >= 10 {
                fields.skip(16)?
            } else {
                fields.string().map(drop)?
            }
            for _ in 0..fields.array()? {
                // Partition, offset, leader's epoch, metadata, error.
                fields.skip(4 + 8)?;
                if version >= 5 {
                    fields.i32()?;
                }
                fields.string()?;
                fields.i16()?;
                fields.tags()?;
            }
            fields.tags()?;
        }
        Some(())
    };
    if version >= 3 {
        fields.i32()?;
    }
    if version < 8 {
        topics(fields)?;
        return if version >= 2 { Some(vec![place(fields)?]) } else { None };
    }
    let mut places = Vec::new();
    for _ in 0..fields.array()? {
        fields.string()?;
        topics(fields)?;
        places.push(place(fields)?);
        fields.tags()?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: ErrorCode = ErrorCode::NOT_COORDINATOR;

    #[track_caller]
    fn check(api: Api, version: i16, body: &[u8], places: &[usize]) {
        let mut frame = vec![0, 0, 0, 9];
        if api.is_flexible(version) {
            frame.push(0);
        }
        let header = frame.len();
        frame.extend(body);
        let places: Vec<usize> = places.iter().map(|at| header + at).collect();
        assert_eq!(error_places(api, version, &frame).as_ref(), Some(&places), "{api} version {version}");
        assert_eq!(error_of(api, version, &frame), Some(ErrorCode::NONE));
        let untouched = frame.clone();
        assert!(falsify(api, version, &mut frame, WRONG));
        assert_eq!(error_of(api, version, &frame), Some(WRONG));
        assert!(frame.iter().zip(&untouched).enumerate().all(|(at, (new, old))| new == old || places.contains(&(at - 1))));
        // An answer that ends too early is left alone.
        let mut short = frame[..places[places.len() - 1] + 1].to_vec();
        assert!(!falsify(api, version, &mut short, ErrorCode::NONE));
    }

    #[test]
    fn the_errors_of_answers_are_found_and_falsified_in_place() {
        check(Api::END_TXN, 1, &[0; 6], &[4]);
        check(Api::END_TXN, 3, &[0; 7], &[4]);
        check(Api::HEARTBEAT, 0, &[0; 2], &[0]);
        check(Api::HEARTBEAT, 3, &[0; 6], &[4]);
        check(Api::JOIN_GROUP, 5, &[0; 30], &[4]);
        check(Api::INIT_PRODUCER_ID, 4, &[0; 17], &[4]);
        check(Api::FIND_COORDINATOR, 2, &[0; 20], &[4]);
        check(Api::CONSUMER_GROUP_HEARTBEAT, 1, &[0; 20], &[4]);
        check(Api::STREAMS_GROUP_HEARTBEAT, 0, &[0; 20], &[4]);
        // Throttle; one topic "t" with two partitions.
        check(
            Api::ADD_PARTITIONS_TO_TXN,
            0,
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
            &[19, 25],
        );
        check(Api::TXN_OFFSET_COMMIT, 3, &[0, 0, 0, 0, 2, 2, b't', 2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[12]);
        let partition = [&[0, 0, 0, 0, 0, 0][..], &[0; 24], &[1, 0, 0]].concat();
        check(Api::PRODUCE, 10, &[&[2, 2, b't', 3], &partition[..], &partition, &[0, 0, 0, 0, 0, 0]].concat(), &[8, 41]);
        check(Api::FIND_COORDINATOR, 4, &[0, 0, 0, 0, 2, 2, b'g', 0, 0, 0, 1, 2, b'h', 0, 0, 0, 1, 0, 0, 0, 0, 0], &[17]);
        let partition = [&[0; 16][..], &[1, 0, 0, 0]].concat();
        check(Api::OFFSET_FETCH, 7, &[&[0, 0, 0, 0, 2, 2, b't', 2], &partition[..], &[0, 0, 0, 0]].concat(), &[29]);
        check(Api::OFFSET_FETCH, 9, &[&[0, 0, 0, 0, 2, 2, b'g', 2, 2, b't', 2], &partition[..], &[0, 0, 0, 0, 0]].concat(), &[32]);
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        let mut frame = vec![0; 40];
        assert!(!falsify(Api(3), 1, &mut frame, WRONG));
        assert!(!falsify(Api::PRODUCE, 13, &mut frame, WRONG));
        assert_eq!(frame, vec![0; 40]);
    }
}
