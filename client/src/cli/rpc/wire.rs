//! JSON-RPC 2.0: lines in, lines out. Pure, except for [`Lines`].

use super::super::output;
use fastchat_client::api::{ApiError, ErrorKind, Event, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Limit: bytes of a line.
const MAX_LINE: usize = 1024 * 1024;
/// Limit: calls of a batch.
const MAX_BATCH: usize = 256;

/// Codes of the specification; an answer of the program is [`REFUSED`] with the reason in `data`.
const PARSE: i32 = -32_700;
const INVALID: i32 = -32_600;
const NO_METHOD: i32 = -32_601;
const PARAMS: i32 = -32_602;
const INTERNAL: i32 = -32_603;
const REFUSED: i32 = -32_000;

/// A call that can be made, or why not, and who wants to hear of it.
#[derive(Debug)]
pub(super) struct Call {
    /// `None`: nobody.
    pub(super) id: Option<Value>,
    pub(super) request: Result<Request, Refused>,
}

/// What a line holds.
#[derive(Debug)]
pub(super) enum Parsed {
    One(Result<Call, Refused>),
    Batch(Vec<Result<Call, Refused>>),
    Wrong(Refused),
}

/// Why a call is not answered with a result.
#[derive(Debug)]
pub(super) struct Refused {
    code: i32,
    message: String,
    data: Value,
}

impl Refused {
    fn new(code: i32, message: impl Into<String>) -> Self {
        let kind = if code == INTERNAL { ErrorKind::Internal } else { ErrorKind::Usage };
        Self { code, message: message.into(), data: json!({ "kind": kind, "exit": kind.exit_code() }) }
    }

    /// To a line from which no id could be read.
    pub(super) fn answer(self) -> Value {
        answer(&Value::Null, Err::<Response, _>(self))
    }
}

impl From<ApiError> for Refused {
    fn from(ApiError { kind, message }: ApiError) -> Self {
        let code = match kind {
            ErrorKind::Internal => INTERNAL,
            ErrorKind::Usage => PARAMS,
            _ => REFUSED,
        };
        Self { code, message, data: json!({ "kind": kind, "exit": kind.exit_code() }) }
    }
}

/// Reads a line.
pub(super) fn parse(line: Result<Vec<u8>, Refused>) -> Parsed {
    let value = match line.map(|line| serde_json::from_slice::<Value>(&line)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => return Parsed::Wrong(Refused::new(PARSE, format!("this is not JSON: {error}"))),
        Err(refused) => return Parsed::Wrong(refused),
    };
    match value {
        Value::Array(calls) if calls.is_empty() => {
            Parsed::Wrong(Refused::new(INVALID, "a batch holds at least one call"))
        }
        Value::Array(calls) if calls.len() > MAX_BATCH => {
            Parsed::Wrong(Refused::new(INVALID, format!("a batch holds at most {MAX_BATCH} calls")))
        }
        Value::Array(calls) => Parsed::Batch(calls.into_iter().map(call).collect()),
        value => Parsed::One(call(value)),
    }
}

fn call(mut value: Value) -> Result<Call, Refused> {
    let invalid = |message: &str| Err(Refused::new(INVALID, message));
    let Some(object) = value.as_object_mut() else { return invalid("a call is an object") };
    let id = object.remove("id");
    if object.get("jsonrpc") != Some(&json!("2.0")) {
        return invalid("\"jsonrpc\":\"2.0\" is missing");
    }
    if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
        return invalid("an id is text or a number");
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return invalid("\"method\" is missing");
    };
    let request = match object.remove("params") {
        None => request(&method, &json!({})),
        Some(params @ Value::Object(_)) => request(&method, &params),
        Some(_) => Err(Refused::new(PARAMS, "params are an object, by name")),
    };
    Ok(Call { id, request })
}

/// Methods without params are called without any, or with none in braces.
fn request(method: &str, params: &Value) -> Result<Request, Refused> {
    let bare = params.as_object().is_some_and(serde_json::Map::is_empty);
    let with = serde_json::from_value(json!({ "method": method, "params": params }));
    let read = match with {
        Err(_) if bare => serde_json::from_value(json!({ "method": method })).or(with),
        read => read,
    };
    match read {
        // It is the owner's, who may be another process.
        Ok(Request::Shutdown) => Err(Refused::new(NO_METHOD, "there is no method shutdown: end the input")),
        Ok(request) => Ok(request),
        Err(error) if error.to_string().starts_with("unknown variant `") && !is_method(method) => {
            Err(Refused::new(NO_METHOD, format!("there is no method {method}")))
        }
        Err(error) => Err(Refused::new(PARAMS, format!("{method}: {error}"))),
    }
}

/// Whether the method is known: then another name in the params is not.
fn is_method(method: &str) -> bool {
    let error = serde_json::from_value::<Request>(json!({ "method": method, "params": 0 })).err();
    error.is_none_or(|error| !error.to_string().starts_with("unknown variant `"))
}

/// The answer to a call.
pub(super) fn answer(id: &Value, answer: Result<impl Into<Answer>, Refused>) -> Value {
    match answer.map(Into::into) {
        Ok(Answer(result)) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(Refused { code, message, data }) => {
            let error = json!({ "code": code, "message": message, "data": data });
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    }
}

/// A result with its version.
#[derive(Debug)]
pub(super) struct Answer(Value);

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self(output::versioned(&response))
    }
}

/// Something that happened.
pub(super) fn event(event: &Event) -> Value {
    json!({ "jsonrpc": "2.0", "method": "event", "params": output::versioned(event) })
}

/// Events were lost: what they said is in the store (`unread`, `history`).
pub(super) fn missed() -> Value {
    json!({ "jsonrpc": "2.0", "method": "event", "params": { "v": 1, "type": "missed" } })
}

/// Lines of bounded length.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// What is longer than a line may be is read past.
    too_long: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(read: R) -> Self {
        Self { reader: BufReader::new(read), line: Vec::new(), too_long: false }
    }

    /// The next line that is not empty; `None` at the end. Cancel safety: what was read is kept.
    pub(super) async fn next(&mut self) -> Result<Option<Result<Vec<u8>, Refused>>, ApiError> {
        loop {
            let bytes = self.reader.fill_buf().await.map_err(ApiError::internal)?;
            if bytes.is_empty() {
                return Ok(self.take());
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            self.too_long |= self.line.len() + part.len() > MAX_LINE;
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some()
                && let Some(line) = self.take()
            {
                return Ok(Some(line));
            }
        }
    }

    fn take(&mut self) -> Option<Result<Vec<u8>, Refused>> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return Some(Err(Refused::new(INVALID, format!("a line has at most {MAX_LINE} bytes"))));
        }
        (!line.iter().all(u8::is_ascii_whitespace)).then_some(Ok(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Call, Refused> {
        match parse(Ok(line.as_bytes().to_vec())) {
            Parsed::One(call) => call,
            Parsed::Wrong(refused) => Err(refused),
            Parsed::Batch(_) => unreachable!("not a batch"),
        }
    }

    #[test]
    fn calls_are_understood_or_refused_by_the_codes_of_the_specification() {
        let good = |line: &str| one(line).unwrap();
        let call = good(r#"{"jsonrpc":"2.0","id":"a","method":"unread","params":{"limit":3}}"#);
        assert_eq!((call.id, call.request.unwrap()), (Some(json!("a")), Request::Unread { limit: 3 }));
        for params in ["", r#","params":{}"#] {
            let call = good(&format!(r#"{{"jsonrpc":"2.0","id":7,"method":"who_am_i"{params}}}"#));
            assert_eq!(call.request.unwrap(), Request::WhoAmI);
            let call = good(&format!(r#"{{"jsonrpc":"2.0","method":"outbox_retry"{params}}}"#));
            assert_eq!((call.id, call.request.unwrap()), (None, Request::OutboxRetry { id: None }));
        }
        let refused = [
            ("{", PARSE),
            ("[]", INVALID),
            ("7", INVALID),
            (r#"{"id":1,"method":"who_am_i"}"#, INVALID),
            (r#"{"jsonrpc":"2.0","id":{},"method":"who_am_i"}"#, INVALID),
            (r#"{"jsonrpc":"2.0","id":1}"#, INVALID),
            (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, NO_METHOD),
            (r#"{"jsonrpc":"2.0","id":1,"method":"shutdown"}"#, NO_METHOD),
            (r#"{"jsonrpc":"2.0","id":1,"method":"unread"}"#, PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"unread","params":[3]}"#, PARAMS),
            (r#"{"jsonrpc":"2.0","id":1,"method":"backup","params":{"action":"x"}}"#, PARAMS),
        ];
        for (line, code) in refused {
            let refused = one(line).and_then(|call| call.request).unwrap_err();
            assert_eq!(refused.code, code, "{line}: {}", refused.message);
        }
        let batch = parse(Ok(br#"[{"jsonrpc":"2.0","id":1,"method":"status"}, 1]"#.to_vec()));
        assert!(matches!(batch, Parsed::Batch(calls) if calls[0].is_ok() && calls[1].is_err()));
        let refused = Refused::from(ApiError::new(ErrorKind::NotFound, "no"));
        let said = answer(&json!(5), Err::<Response, _>(refused));
        let error = json!({ "code": REFUSED, "message": "no", "data": { "kind": "not_found", "exit": 7 } });
        assert_eq!(said, json!({ "jsonrpc": "2.0", "id": 5, "error": error }));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_read_past() {
        let input = [b"one\n\n".as_slice(), &vec![b'x'; MAX_LINE + 1], b"\ntwo\nthree"].concat();
        let mut lines = Lines::new(input.as_slice());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push(
                line.map_or_else(|refused| refused.code.to_string(), |l| String::from_utf8(l).unwrap()),
            );
        }
        assert_eq!(seen, ["one", "-32600", "two", "three"]);
    }
}
