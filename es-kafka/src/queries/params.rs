//! What comes with a request: parameters, the token of a position, and the cursor of a page.

use super::problem::Problem;
use crate::settings::Value;
use axum::extract::Query;
use axum::http::{HeaderMap, Uri};
use std::time::Duration;

/// Set on a question that was handed on, with the milliseconds for which it may wait: it is never handed on again.
pub(crate) const FORWARDED: &str = "es-forwarded";
/// Set to `1` by a client that wants to be told where the owner is.
pub(crate) const REDIRECT: &str = "es-redirect";

/// The parameters of a request, each at most once.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads them, and refuses those that are not `known`.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(all) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|e| Problem::bad_request(format!("the parameters cannot be read: {e}. Encode them as percent-encoding says")))?;
        for (i, (name, _)) in all.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let name = name.escape_debug();
                return Err(Problem::bad_request(format!("there is no parameter `{name}` here: it takes {}", known.join(", "))));
            }
            if all[..i].iter().any(|(other, _)| other == name) {
                return Err(Problem::bad_request(format!("the parameter `{name}` is there twice")));
            }
        }
        Ok(Params(all))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Problem::bad_request(format!("`{name}` is `{}`, which is no whole number in its range", text.escape_debug())))
        };
        self.text(name).map(parse).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(Problem::bad_request(format!("`{name}` is `{}`: write true or false", other.escape_debug()))),
        }
    }

    /// For how long the answer may be waited for; `most` is refused to be passed.
    pub(crate) fn wait(&self, most: Duration, otherwise: Duration) -> Result<Duration, Problem> {
        let Some(text) = self.text("wait") else { return Ok(otherwise.min(most)) };
        let wait = match text {
            "0" => Duration::ZERO,
            text => Duration::parse(text).map_err(|why| Problem::bad_request(format!("`wait`: {why}")))?,
        };
        match wait <= most {
            true => Ok(wait),
            false => Err(Problem::too_large(format!("`wait` may be at most {} (`query.max.wait`): ask again instead", most.show()))),
        }
    }

    /// The position that the state must reflect: partition and offset of a command that was written.
    pub(crate) fn min_position(&self) -> Result<Option<(i32, i64)>, Problem> {
        let parse = |text: &str| {
            let parts = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
            let legal = parts.filter(|(partition, offset): &(i32, i64)| *partition >= 0 && *offset >= 0);
            legal.ok_or_else(|| {
                let text = text.escape_debug();
                Problem::bad_request(format!(
                    "`min_position` is `{text}`: write PARTITION:OFFSET, as the producer was told when it wrote the command"
                ))
            })
        };
        self.text("min_position").map(parse).transpose()
    }
}

/// Whether the client wants to be redirected.
pub(crate) fn wants_redirect(headers: &HeaderMap, params: &Params) -> Result<bool, Problem> {
    Ok(params.flag("redirect")? || headers.get(REDIRECT).is_some_and(|value| value == "1"))
}

/// Whether the question was handed on, and how long it may wait then.
pub(crate) fn forwarded(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(FORWARDED)?.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Duration::from_millis(millis))
}

/// Where a page ended: the partition, and the id behind which the next page begins; `None`: at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) partition: i32,
    pub(crate) after: Option<String>,
}

impl Cursor {
    /// Opaque to clients.
    pub(crate) fn write(&self) -> String {
        let mut bytes = self.partition.to_be_bytes().to_vec();
        if let Some(after) = &self.after {
            bytes.push(1);
            bytes.extend_from_slice(after.as_bytes());
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let wrong =
            || Problem::bad_request("`cursor` is not one that a page has given: take it from `cursor` of the page before, as it is");
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
            return Err(wrong());
        }
        let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).ok();
        let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().ok_or_else(wrong)?;
        let (partition, rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let partition = i32::from_be_bytes(*partition);
        let after = match rest {
            [] => None,
            [1, id @ ..] => Some(String::from_utf8(id.to_vec()).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        if partition < 0 { Err(wrong()) } else { Ok(Cursor { partition, after }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_rubbish_is_refused() {
        for after in [None, Some(String::new()), Some("é/1".to_owned())] {
            let cursor = Cursor { partition: 7, after };
            assert_eq!(Cursor::read(&cursor.write()), Ok(cursor));
        }
        for text in ["", "00", "zz", "0000000", "ffffffff", "0000000002", "0000000001ff", "é", "+1000000", "00000000 1"] {
            assert!(Cursor::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_are_taken_once_and_by_name() {
        let read = |query: &str| Params::read(&format!("/x?{query}").parse().unwrap(), &["limit", "wait", "min_position", "stale"]);
        let params = read("limit=5&wait=20ms&min_position=3:17&stale").unwrap();
        assert_eq!(params.number("limit"), Ok(Some(5)));
        assert_eq!(params.wait(Duration::from_secs(1), Duration::ZERO), Ok(Duration::from_millis(20)));
        assert_eq!(params.wait(Duration::from_millis(1), Duration::ZERO).unwrap_err().error, "too_large");
        assert_eq!(params.min_position(), Ok(Some((3, 17))));
        assert_eq!(params.flag("stale"), Ok(true));
        assert!(read("limit=5&limit=6").is_err() && read("limt=5").is_err());
        for bad in ["", "3", "3:", ":3", "-1:3", "3:-1", "a:b", "3:4:5", "99999999999:1"] {
            assert!(read(&format!("min_position={bad}")).unwrap().min_position().is_err(), "{bad}");
        }
        assert!(read("limit=-1").unwrap().number::<usize>("limit").is_err());
    }
}
