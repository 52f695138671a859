use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

const LOG: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<!-- a comment -->
<log xes.version="1.0" xmlns="http://www.xes-standard.org/">
	<extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
	<global scope="event">
		<string key="concept:name" value="UNKNOWN"/>
	</global>
	<int key="statistics" value="2"><int key="UNKNOWN" value="2"/></int>
	<trace>
		<string key="AMOUNT_REQ" value="20000"/>
		<string key="concept:name" value="1 &lt; 2 &amp; &#x41;"><string key="concept:name" value="nested"/></string>
		<event>
			<string key="org:resource" value="112"/>
			<string key="lifecycle:transition" value="COMPLETE"/>
			<string key="concept:name" value="A_SUBMITTED"/>
			<date key="time:timestamp" value="1970-01-01T00:00:01.000+00:00"/>
		</event>
		<event>
			<string key="concept:name" value="A_PARTLYSUBMITTED"></string>
			<date key="time:timestamp" value="1970-01-01T00:00:02Z"/>
			<boolean key="other" value="true"/>
		</event>
	</trace>
	<trace><string key="concept:name" value="empty"/></trace>
</log>
"#;

fn expected() -> Vec<Trace> {
    let submitted =
        Event { line: 12, name: "A_SUBMITTED".into(), transition: Some("COMPLETE".into()), resource: Some("112".into()), time: 1000 };
    let partly = Event { line: 18, name: "A_PARTLYSUBMITTED".into(), transition: None, resource: None, time: 2000 };
    let attributes = BTreeMap::from([("AMOUNT_REQ".to_owned(), "20000".to_owned())]);
    vec![
        Trace { line: 9, name: "1 < 2 & A".into(), attributes, events: vec![submitted, partly] },
        Trace { line: 24, name: "empty".into(), attributes: BTreeMap::new(), events: vec![] },
    ]
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Trace>, XesError> {
    from_bytes(bytes).unwrap().collect()
}

#[test]
fn a_plain_log_is_read() {
    assert_eq!(read(LOG.as_bytes()).unwrap(), expected());
}

#[test]
fn a_compressed_log_is_read_even_when_it_is_compressed_in_pieces() {
    assert_eq!(read(&gzip(LOG.as_bytes())).unwrap(), expected());
    let (first, second) = LOG.as_bytes().split_at(300);
    assert_eq!(read(&[gzip(first), gzip(second)].concat()).unwrap(), expected());
}

#[test]
fn traces_come_before_the_rest_is_read() {
    let (start, _) = LOG.split_once("\t<trace><string key=\"concept:name\" value=\"empty\"").unwrap();
    let mut reader = from_bytes(start.as_bytes()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap(), expected()[0]);
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none(), "it ends with the first error");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let without = |part: &str| {
        assert!(LOG.contains(part), "{part}");
        LOG.replacen(part, "", 1)
    };
    let cases = [
        (String::new(), "line 1: there is no <log>: this is not an event log in XES"),
        ("rubbish\n".to_owned(), "line 2: there is no <log>"),
        ("<html>\n</html>".to_owned(), "line 1: an event log in XES starts with <log>, this with <html>"),
        (without("value=\"A_SUBMITTED\""), "line 12: the event has no `concept:name`"),
        (without("<date key=\"time:timestamp\" value=\"1970-01-01T00:00:02Z\"/>"), "line 18: the event has no `time:timestamp`"),
        (LOG.replace("1970-01-01T00:00:02Z", "yesterday"), "line 18: `yesterday` is no time"),
        (without("<string key=\"concept:name\" value=\"empty\"/>"), "line 24: the trace has no `concept:name`"),
        (without("</event>"), "line 23: not well-formed XML"),
        (without("&amp;").replace("&lt;", "&nothing;"), "line 11: not well-formed XML"),
        (LOG.replace("</log>\n", ""), "line 25: the file ends within the <log>"),
        (LOG[..LOG.find("<boolean").unwrap()].to_owned(), "line 21: the file ends within the <event> of line 18: it was cut off"),
    ];
    for (log, message) in cases {
        let error = read(log.as_bytes()).expect_err(message).to_string();
        assert!(error.starts_with(message), "{error}\nis not\n{message}");
    }
}

#[test]
fn a_compressed_log_that_was_cut_off_is_told() {
    let whole = gzip(LOG.as_bytes());
    let error = read(&whole[..whole.len() - 20]).unwrap_err();
    assert!(matches!(error, XesError::Io { .. }), "{error}");
}
