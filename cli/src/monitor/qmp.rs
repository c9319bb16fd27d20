//! The monitor for programs: QMP, the JSON protocol of QEMU.
//!
//! A client sends objects, one behind the other, with or without line ends between them; each gets
//! one answer with its `id`. Until it has sent `qmp_capabilities` it can do nothing else and is
//! told of no events. Arguments are checked against the command's row in [`COMMANDS`] before it
//! runs.
//!
//! Source: QEMU 7.2, "QEMU Machine Protocol Specification" and the QMP Reference Manual.

use super::{Monitor, Out, Refused, hmp, info, send};
use machine::Drive;
use machine::block;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

/// Bytes of one command at most.
const MOST: usize = 1 << 20;
/// The version of QEMU whose protocol this is.
const VERSION: [u32; 3] = [7, 2, 0];

type Object = Map<String, Value>;
type Answer = Result<Value, Refused>;

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
    List,
}

/// An argument: its name, its type, and whether it must be there.
type Argument = (&'static str, Kind, bool);

/// A command: its name, its arguments, and what does it.
type Row = (&'static str, &'static [Argument], fn(&Monitor, &Object) -> Answer);

const DEVICE: Argument = ("device", Kind::Text, false);
const ID: Argument = ("id", Kind::Text, false);
const SAVE: &[Argument] = &[
    ("val", Kind::Number, true),
    ("size", Kind::Number, true),
    ("filename", Kind::Text, true),
    ("cpu-index", Kind::Number, false),
];

#[rustfmt::skip]
const COMMANDS: &[Row] = &[
    ("qmp_capabilities", &[("enable", Kind::List, false)], |_, _| Err(again())),
    ("query-version", &[], |_, _| Ok(version())),
    ("query-commands", &[], |_, _| Ok(commands())),
    ("query-status", &[], |m, _| Ok(status(m))),
    ("query-cpus-fast", &[], cpus),
    ("query-block", &[], |m, _| m.ask(|m| m.drives().iter().map(drive).collect())),
    ("query-name", &[], |_, _| Ok(json!({}))),
    ("stop", &[], |m, _| {
        m.pause(true);
        done(())
    }),
    ("cont", &[], |m, _| {
        m.pause(false);
        done(())
    }),
    ("system_reset", &[], |m, _| m.reset().map(done_value)),
    ("system_powerdown", &[], |m, _| m.power_down().map(done_value)),
    ("quit", &[], |m, _| {
        m.quit();
        done(())
    }),
    ("human-monitor-command",
        &[("command-line", Kind::Text, true), ("cpu-index", Kind::Number, false)], human),
    ("screendump",
        &[("filename", Kind::Text, true), ("device", Kind::Text, false), ("head", Kind::Number, false),
          ("format", Kind::Text, false)],
        |m, a| m.screendump(text(a, "filename").as_ref()).map(done_value)),
    ("send-key", &[("keys", Kind::List, true), ("hold-time", Kind::Number, false)], send_key),
    ("eject", &[DEVICE, ID, ("force", Kind::Switch, false)],
        |m, a| m.change(&device(a)?, None, None, None).map(done_value)),
    ("blockdev-change-medium",
        &[DEVICE, ID, ("filename", Kind::Text, true), ("format", Kind::Text, false),
          ("force", Kind::Switch, false), ("read-only-mode", Kind::Text, false)], change),
    ("memsave", SAVE, |m, a| save(m, a, true)),
    ("pmemsave", SAVE, |m, a| save(m, a, false)),
];

fn done((): ()) -> Answer {
    Ok(done_value(()))
}

fn done_value((): ()) -> Value {
    json!({})
}

/// A string argument that was checked.
fn text<'a>(args: &'a Object, name: &str) -> &'a str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(args: &Object, name: &str) -> Option<u64> {
    let value = args.get(name)?;
    value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
}

fn again() -> Refused {
    let desc = "Capabilities negotiation is already complete, command ignored".to_owned();
    Refused { class: "CommandNotFound", desc }
}

fn version() -> Value {
    let [major, minor, micro] = VERSION;
    let package = concat!("ring3-", env!("CARGO_PKG_VERSION"));
    json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": package})
}

fn commands() -> Value {
    COMMANDS.iter().map(|(name, ..)| json!({ "name": name })).collect()
}

fn status(monitor: &Monitor) -> Value {
    let paused = monitor.is_paused();
    let status = if paused { "paused" } else { "running" };
    json!({"status": status, "singlestep": false, "running": !paused})
}

fn cpus(monitor: &Monitor, _: &Object) -> Answer {
    Ok(json!([{
        "cpu-index": 0,
        "qom-path": "/machine/unattached/device[0]",
        "thread-id": info::thread_id(monitor)?,
        "target": "x86_64",
        "props": {"socket-id": 0, "core-id": 0, "thread-id": 0},
    }]))
}

fn drive(drive: &Drive) -> Value {
    let mut row = json!({
        "device": drive.name,
        "type": "unknown",
        "removable": drive.is_removable(),
        "locked": false,
        "qdev": drive.name,
    });
    if drive.is_removable() {
        row["tray_open"] = json!(false);
    }
    if let (Some(file), Some((_, size))) = (&drive.spec.file, drive.medium) {
        let through = drive.spec.cache == block::Cache::WriteThrough;
        let (file, format) = (file.to_string_lossy(), info::format(drive));
        row["inserted"] = json!({
            "file": file,
            "ro": info::read_only(drive),
            "drv": format,
            "backing_file_depth": 0,
            "encrypted": false,
            "detect_zeroes": "off",
            "cache": {"writeback": !through, "direct": false, "no-flush": false},
            "image": {"filename": file, "format": format, "virtual-size": size},
        });
    }
    row
}

fn human(monitor: &Monitor, args: &Object) -> Answer {
    let shown = hmp::execute(monitor, text(args, "command-line"));
    Ok(Value::String(shown.replace('\n', "\r\n")))
}

fn send_key(monitor: &Monitor, args: &Object) -> Answer {
    let wrong = || Refused::new("Invalid parameter type for 'keys', expected: array of KeyValue");
    let keys = args.get("keys").and_then(Value::as_array).ok_or_else(wrong)?;
    let name = |key: &Value| match (key["type"].as_str(), &key["data"]) {
        (Some("qcode"), Value::String(name)) => Some(name.clone()),
        (Some("number"), Value::Number(code)) => Some(format!("0x{:x}", code.as_u64()?)),
        _ => None,
    };
    let names = keys.iter().map(|k| name(k).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hold = number(args, "hold-time").unwrap_or(100);
    monitor.send_keys(&names, hold).map(done_value)
}

/// The drive that `id` or `device` names.
fn device(args: &Object) -> Result<String, Refused> {
    match (args.contains_key("id"), args.contains_key("device")) {
        (false, false) => Err(Refused::new("Need exactly one of 'device' and 'id'")),
        (id, _) => Ok(text(args, if id { "id" } else { "device" }).to_owned()),
    }
}

fn change(monitor: &Monitor, args: &Object) -> Answer {
    let invalid = |what: &str| Refused::new(format!("Invalid parameter '{what}'"));
    let format = match args.get("format").and_then(Value::as_str) {
        None => None,
        Some("raw") => Some(block::Format::Raw),
        Some("qcow2") => Some(block::Format::Qcow2),
        Some(other) => return Err(Refused::new(format!("Unknown driver '{other}'"))),
    };
    let read_only = match args.get("read-only-mode").and_then(Value::as_str) {
        None | Some("retain") => None,
        Some("read-only") => Some(true),
        Some("read-write") => Some(false),
        Some(other) => return Err(invalid(other)),
    };
    let file = PathBuf::from(text(args, "filename"));
    monitor.change(&device(args)?, Some(file), format, read_only).map(done_value)
}

fn save(monitor: &Monitor, args: &Object, linear: bool) -> Answer {
    let [start, size] = ["val", "size"].map(|name| number(args, name).unwrap_or(0));
    monitor.save(linear, start, size, text(args, "filename").as_ref()).map(done_value)
}

/// Checks arguments against a command's row.
fn check(args: &Object, row: &[Argument]) -> Result<(), Refused> {
    for &(name, kind, needed) in row {
        let (fits, expected) = match (args.get(name), kind) {
            (None, _) if needed => {
                return Err(Refused::new(format!("Parameter '{name}' is missing")));
            }
            (None, _) => continue,
            (Some(v), Kind::Text) => (v.is_string(), "string"),
            (Some(v), Kind::Number) => (v.is_u64() || v.is_i64(), "integer"),
            (Some(v), Kind::Switch) => (v.is_boolean(), "boolean"),
            (Some(v), Kind::List) => (v.is_array(), "array"),
        };
        if !fits {
            let desc = format!("Invalid parameter type for '{name}', expected: {expected}");
            return Err(Refused::new(desc));
        }
    }
    match args.keys().find(|k| row.iter().all(|(name, ..)| name != k)) {
        Some(name) => Err(Refused::new(format!("Parameter '{name}' is unexpected"))),
        None => Ok(()),
    }
}

/// Does one command; `ready` says whether capabilities were negotiated, and changes when they are.
fn execute(monitor: &Monitor, ready: &mut bool, command: &Value) -> Answer {
    let Some(object) = command.as_object() else {
        return Err(Refused::new("QMP input must be a JSON object"));
    };
    let known = ["execute", "arguments", "id"];
    if let Some(key) = object.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(Refused::new(format!("QMP input member '{key}' is unexpected")));
    }
    let name = match object.get("execute") {
        None => return Err(Refused::new("QMP input lacks member 'execute'")),
        Some(Value::String(name)) => name,
        Some(_) => return Err(Refused::new("QMP input member 'execute' must be a string")),
    };
    let empty = Object::new();
    let args = match object.get("arguments") {
        None => &empty,
        Some(Value::Object(args)) => args,
        Some(_) => return Err(Refused::new("QMP input member 'arguments' must be an object")),
    };
    let unknown = |desc| Refused { class: "CommandNotFound", desc };
    if !*ready && name != "qmp_capabilities" {
        let desc = "Expecting capabilities negotiation with 'qmp_capabilities'".to_owned();
        return Err(unknown(desc));
    }
    let row = COMMANDS.iter().find(|(n, ..)| n == name);
    let (_, row, run) =
        row.ok_or_else(|| unknown(format!("The command {name} has not been found")))?;
    check(args, row)?;
    if !*ready {
        if let Some(capability) = args.get("enable").and_then(|list| list.get(0)) {
            let desc =
                format!("Capability '{}' is not available", capability.as_str().unwrap_or(""));
            return Err(Refused::new(desc));
        }
        *ready = true;
        return Ok(json!({}));
    }
    run(monitor, args)
}

/// The answer to a command.
fn answer(result: Answer, id: Option<&Value>) -> String {
    let mut answer = match result {
        Ok(value) => json!({ "return": value }),
        Err(Refused { class, desc }) => json!({"error": {"class": class, "desc": desc}}),
    };
    if let Some(id) = id {
        answer["id"] = id.clone();
    }
    format!("{answer}\r\n")
}

/// Serves one client until its input ends.
///
/// # Errors
/// The client cannot be read or written any more.
pub fn serve(monitor: &Monitor, mut input: impl BufRead, out: &Out) -> io::Result<()> {
    let greeting = json!({"QMP": {"version": version(), "capabilities": []}});
    send(out, &format!("{greeting}\r\n"))?;
    let mut ready = false;
    let result = loop {
        match next(&mut input) {
            Ok(None) => break Ok(()),
            Ok(Some(Err(desc))) => send(out, &answer(Err(Refused::new(desc)), None))?,
            Ok(Some(Ok(command))) => {
                let was = ready;
                let result = execute(monitor, &mut ready, &command);
                let sent = send(out, &answer(result, command.get("id")));
                // A client that reads no answers is obeyed all the same.
                monitor.quit_if_asked();
                if let Err(e) = sent {
                    break Err(e);
                }
                if ready && !was {
                    monitor.listen(out);
                }
            }
            Err(e) => break Err(e),
        }
    };
    monitor.leave(out);
    result
}

/// Reads the next JSON value, or what is wrong with it; `None` at the end of the input.
fn next(input: &mut impl BufRead) -> io::Result<Option<Result<Value, String>>> {
    loop {
        let buffer = input.fill_buf()?;
        let Some(&byte) = buffer.first() else { return Ok(None) };
        if !byte.is_ascii_whitespace() {
            break;
        }
        input.consume(1);
    }
    // A value that ends by itself is read to its last byte, not further.
    let mut json = serde_json::Deserializer::from_reader(input.by_ref().take(MOST as u64));
    match Value::deserialize(&mut json) {
        Ok(value) => Ok(Some(Ok(value))),
        Err(e) if e.is_io() => Err(e.into()),
        Err(e) if e.is_eof() => Ok(None),
        Err(e) => {
            // The rest of the line, as far as it is here, makes no more sense.
            let buffer = input.fill_buf()?;
            let line = buffer.iter().position(|b| *b == b'\n').map_or(buffer.len(), |n| n + 1);
            input.consume(line);
            Ok(Some(Err(format!("JSON parse error, {e}"))))
        }
    }
}
