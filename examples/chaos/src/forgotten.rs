//! Transactions that the broker itself forgets, and their end by hand.
//!
//! While the only broker of a cluster starts, its partitions are without a leader for a moment. What its transaction coordinator has decided by then, a commit or an
//! abort, stands in its log; but the markers that tell the partitions are skipped where there is no leader: "Couldn't find leader endpoint for partitions … these partitions
//! are likely deleted already and hence can be skipped". The transaction is over for the coordinator, and stays open for ever for the partition. An application can only
//! wait; an administrator can write the marker that is missing, as the coordinator had decided (`kafka-transactions.sh` knows aborts alone: a commit that is aborted
//! tears the transaction). Only what the broker's log names is ended here.

use crate::logs::Unrest;
use crate::world::{Broker, OFFSETS, OFFSETS_PARTITIONS};
use bytes::{BufMut, BytesMut};
use es_testkit::kafka_server::Server;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{ProducerId, RequestHeader, ResponseHeader, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// WriteTxnMarkers
const WRITE_TXN_MARKERS: i16 = 27;

/// What the broker's log says of skipped markers.
#[derive(Debug, Default)]
struct Skipped<'a> {
    /// Whether the partition's last skipped marker was one of a commit, by the partition as the log writes it: `topic-partition`.
    commits: HashMap<&'a str, bool>,
}

impl<'a> Skipped<'a> {
    fn read(log: &'a str) -> Self {
        let mut skipped = Skipped::default();
        // What a coordinator has found decided when it loaded.
        let mut decided: HashMap<&str, bool> = HashMap::new();
        for line in log.lines() {
            if let Some((_, told)) = line.split_once("Sending txn markers for TransactionalIdCoordinatorEpochAndTransitMetadata(") {
                let mut words = told.split(',');
                if let (Some(id), Some(_), Some(decision)) = (words.next(), words.next(), words.next()) {
                    decided.insert(id, decision == "COMMIT");
                }
            } else if let Some((_, told)) = line.split_once("Couldn't find leader endpoint for partitions Set(")
                && let Some((partitions, rest)) = told.split_once(") while trying to send transaction markers for ")
                && let Some((id, _)) = rest.split_once(',')
            {
                // What it decides while it lives and cannot tell is the end of a transaction's time, or of its producer.
                let commits = decided.remove(id).unwrap_or(false);
                skipped.commits.extend(partitions.split(", ").map(|partition| (partition, commits)));
            }
        }
        skipped
    }
}

/// Ends what the broker has forgotten of what is not at rest, and returns on how many partitions.
pub(crate) fn end(broker: &Broker, unrest: &[Unrest]) -> u64 {
    let log = broker.log();
    let server = broker.server();
    let skipped = Skipped::read(&log);
    let mut ended = 0;
    let mut end = |topic: &str, partition: &str| {
        if let Some(commits) = skipped.commits.get(format!("{topic}-{partition}").as_str()) {
            ended += end_all(&server, topic, partition, *commits);
        }
    };
    if unrest.iter().any(|one| matches!(one, Unrest::Offsets { .. })) {
        OFFSETS_PARTITIONS.iter().for_each(|partition| end(OFFSETS, partition));
    }
    // What the application reads comes last: as soon as it can, it goes on.
    for one in unrest.iter().rev() {
        if let Unrest::Open { topic, partition, .. } = one {
            end(topic, &partition.to_string());
        }
    }
    ended
}

/// Ends the transactions that are open on a partition, and returns how many.
fn end_all(server: &Server, topic: &str, partition: &str, commits: bool) -> u64 {
    let servers = server.bootstrap_servers();
    let describe = ["--bootstrap-server", servers, "describe-producers", "--topic", topic, "--partition", partition];
    let told = server.run_tool("org.apache.kafka.tools.TransactionsCommand", &describe, b"").unwrap_or_default();
    let mut ended = 0;
    for line in told.lines().skip(1) {
        // Producer's id and epoch, the coordinator's epoch, sequence, time, and where the open transaction begins.
        let numbers: Vec<Option<i64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
        let [Some(id), Some(epoch), Some(coordinator), _, _, Some(_)] = numbers[..] else { continue };
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(i16::try_from(epoch).unwrap_or_default())
            .with_coordinator_epoch(i32::try_from(coordinator).unwrap_or_default().max(0))
            .with_transaction_result(commits)
            .with_topics(vec![
                WritableTxnMarkerTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                    .with_partition_indexes(vec![partition.parse().unwrap_or_default()]),
            ]);
        match write(servers, marker) {
            Ok(()) => ended += 1,
            // It fails where the transaction has ended meanwhile.
            Err(error) => eprintln!("chaos: a transaction on {topic}-{partition} is not ended by hand: {error}"),
        }
    }
    ended
}

fn write(server: &str, marker: WritableTxnMarker) -> Result<(), Box<dyn Error>> {
    let version = 1;
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let header = RequestHeader::default().with_request_api_key(WRITE_TXN_MARKERS).with_request_api_version(version);
    let mut frame = BytesMut::new();
    header.encode(&mut frame, WriteTxnMarkersRequest::header_version(version))?;
    request.encode(&mut frame, version)?;
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut sent = BytesMut::new();
    sent.put_u32(u32::try_from(frame.len())?);
    sent.put_slice(&frame);
    stream.write_all(&sent)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    let mut answer = bytes::Bytes::from(answer);
    ResponseHeader::decode(&mut answer, WriteTxnMarkersResponse::header_version(version))?;
    let answer = WriteTxnMarkersResponse::decode(&mut answer, version)?;
    let results = answer.markers.iter().flat_map(|marker| &marker.topics).flat_map(|topic| &topic.partitions);
    match results.map(|result| result.error_code).find(|code| *code != 0) {
        Some(code) => Err(format!("the broker refuses it with error {code}").into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_marker_is_one_of_what_the_coordinator_had_decided() {
        let log = "\
            12 INFO [Transaction State Manager 1]: Sending txn markers for TransactionalIdCoordinatorEpochAndTransitMetadata(bank-a-0,8,COMMIT,Transaction…\n\
            13 INFO [Transaction Marker Channel Manager 1]: Couldn't find leader endpoint for partitions Set(__consumer_offsets-0, account-events-1) while trying to send transaction markers for bank-a-0, these partitions are likely deleted already and hence can be skipped\n\
            14 INFO [Transaction Marker Channel Manager 1]: Couldn't find leader endpoint for partitions Set(account-events-2) while trying to send transaction markers for bank-a-0, these partitions are likely deleted already and hence can be skipped\n";
        let expected = HashMap::from([("__consumer_offsets-0", true), ("account-events-1", true), ("account-events-2", false)]);
        assert_eq!(Skipped::read(log).commits, expected);
    }
}
