//! The monitor for people: lines in, text out.
//!
//! [`COMMANDS`] and [`info::COMMANDS`] are all there is; `help` is made of them. Errors are one
//! line, and where the arguments were wrong a second one that names the help.

use super::expr::{Args, Format, Registers, Syntax};
use super::{Monitor, Refused, info, memory};
use emu_core::cpu::{Reg, Seg};
use machine::Machine;
use machine::block;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;

/// What is written when a command is awaited.
pub const PROMPT: &str = "(ring3) ";
/// The longest command line in bytes.
const LINE: usize = 4096;

/// Why a command shows no result.
pub enum Trouble {
    /// Its arguments make no sense.
    Syntax(Syntax),
    /// It was refused.
    Refused(Refused),
}

impl From<Syntax> for Trouble {
    fn from(text: Syntax) -> Trouble {
        Trouble::Syntax(text)
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Trouble {
        Trouble::Refused(refused)
    }
}

type Answer = Result<String, Trouble>;

/// A command.
pub struct Command {
    /// Its name, and others after `|`.
    pub name: &'static str,
    /// Its arguments.
    pub args: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Does it; takes all of the arguments.
    pub run: fn(&Monitor, Args) -> Answer,
}

/// A row of a table of commands.
pub const fn command(
    name: &'static str,
    args: &'static str,
    help: &'static str,
    run: fn(&Monitor, Args) -> Answer,
) -> Command {
    Command { name, args, help, run }
}

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    command("help|?", "[cmd]", "show the help", help),
    command("info", "[subcommand]", "show various information about the system state", show),
    command("x", "/fmt addr", "memory dump at linear address 'addr'", |m, a| dump(m, a, true)),
    command("xp", "/fmt addr", "memory dump at guest-physical address 'addr'", |m, a| dump(m, a, false)),
    command("print|p", "/fmt expr", "print expression value (use $reg for CPU register access)", print),
    command("sendkey", "keys [hold_ms]", "send keys (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)", sendkey),
    command("screendump", "filename", "save the screen into the image 'filename', PNG or PPM", screendump),
    command("stop|s", "", "stop emulation", |m, a| act(a, || { m.pause(true); Ok(()) })),
    command("cont|c", "", "resume emulation", |m, a| act(a, || { m.pause(false); Ok(()) })),
    command("system_reset", "", "reset the system", |m, a| act(a, || m.reset())),
    command("system_powerdown", "", "press the power button", |m, a| act(a, || m.power_down())),
    command("quit|q", "", "end the run", |m, a| act(a, || { m.quit(); Ok(()) })),
    command("eject", "[-f] device", "take out a removable medium", eject),
    command("change", "device filename [format [read-only-mode]]", "put in a removable medium", change),
    command("memsave", "addr size file", "save to disk linear memory dump starting at 'addr' of size 'size'", |m, a| save(m, a, true)),
    command("pmemsave", "addr size file", "save to disk physical memory dump starting at 'addr' of size 'size'", |m, a| save(m, a, false)),
];

fn named<'t>(table: &'t [Command], name: &str) -> Option<&'t Command> {
    table.iter().find(|c| c.name.split('|').any(|n| n == name))
}

/// Does one command line; gives what it shows.
#[must_use]
pub fn execute(monitor: &Monitor, line: &str) -> String {
    let mut args = Args(line);
    let name = match args.word() {
        Ok(Some(name)) => name,
        Ok(None) => return String::new(),
        Err(e) => return format!("{e}\n"),
    };
    // QEMU has the format right behind the name, too: x/4i.
    let (name, args) = match name.split_once('/') {
        Some((name, _)) => (name.to_owned(), Args(&line.trim_start()[name.len()..])),
        None => (name, args),
    };
    let Some(command) = named(COMMANDS, &name) else {
        return format!("unknown command: '{name}'\n");
    };
    match (command.run)(monitor, args) {
        Ok(text) => text,
        Err(Trouble::Syntax(e)) => format!("{e}\nTry \"help {name}\" for more information\n"),
        Err(Trouble::Refused(refused)) => format!("Error: {}\n", refused.desc),
    }
}

/// The first line of a session.
#[must_use]
pub fn greeting() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("Ring3 {version} monitor - type 'help' for more information\n{PROMPT}")
}

/// Serves one client until its input ends; lines are sent with `end`.
///
/// # Errors
/// The client cannot be read or written any more.
pub fn serve(
    monitor: &Monitor,
    mut input: impl BufRead,
    out: &mut dyn Write,
    end: &str,
) -> io::Result<()> {
    let mut put = |text: &str| {
        out.write_all(text.replace('\n', end).as_bytes())?;
        out.flush()
    };
    put(&greeting())?;
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() == LINE && !line.ends_with(b"\n") {
            put("the command line is too long\n")?;
            return Ok(());
        }
        let sent = put(&execute(monitor, &String::from_utf8_lossy(&line)));
        monitor.quit_if_asked();
        sent?;
        put(PROMPT)?;
    }
}

/// A line that is typed on a raw terminal.
#[derive(Default)]
pub struct Editor {
    line: Vec<u8>,
    last: Vec<u8>,
    /// Within an escape sequence: its bytes so far.
    escape: Vec<u8>,
}

impl Editor {
    /// Takes a byte; gives what is shown for it, and the line when it is complete.
    pub fn key(&mut self, byte: u8) -> (String, Option<String>) {
        const ERASE: &str = "\x08 \x08";
        if byte == 0x1b || !self.escape.is_empty() {
            self.escape.push(byte);
            if matches!(self.escape[..], [_] | [_, b'[' | b'O']) {
                return (String::new(), None);
            }
            let up = matches!(std::mem::take(&mut self.escape)[..], [_, _, b'A']);
            if !up {
                return (String::new(), None);
            }
            let erase = ERASE.repeat(self.line.len());
            self.line.clone_from(&self.last);
            return (erase + &String::from_utf8_lossy(&self.line), None);
        }
        let shown = match byte {
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                if !line.is_empty() {
                    self.last.clone_from(&line);
                }
                return ("\n".to_owned(), Some(String::from_utf8_lossy(&line).into_owned()));
            }
            8 | 127 => self.line.pop().map_or(String::new(), |_| ERASE.to_owned()),
            // Ctrl-U and Ctrl-C.
            0x15 | 3 => ERASE.repeat(std::mem::take(&mut self.line).len()),
            32..127 if self.line.len() < LINE => {
                self.line.push(byte);
                char::from(byte).to_string()
            }
            _ => String::new(),
        };
        (shown, None)
    }
}

fn act(args: Args, f: impl FnOnce() -> Result<(), Refused>) -> Answer {
    args.end()?;
    f()?;
    Ok(String::new())
}

/// Lines of help for `table`, each name after `prefix`.
fn list(table: &[Command], prefix: &str) -> String {
    table.iter().fold(String::new(), |mut text, c| {
        let _ = writeln!(text, "{prefix}{} {} -- {}", c.name, c.args, c.help);
        text
    })
}

fn help(_: &Monitor, mut args: Args) -> Answer {
    let name = args.word()?;
    let topic = args.word()?;
    args.end()?;
    Ok(match (name.as_deref(), topic) {
        (None, _) => list(COMMANDS, ""),
        (Some("info"), None) => list(info::COMMANDS, "info "),
        (Some("info"), Some(topic)) => named(info::COMMANDS, &topic)
            .map_or(String::new(), |c| list(std::slice::from_ref(c), "info ")),
        (Some(name), _) => {
            named(COMMANDS, name).map_or(String::new(), |c| list(std::slice::from_ref(c), ""))
        }
    })
}

fn show(monitor: &Monitor, mut args: Args) -> Answer {
    let Some(name) = args.word()? else { return Ok(list(info::COMMANDS, "info ")) };
    match named(info::COMMANDS, &name) {
        Some(command) => (command.run)(monitor, args),
        None => Ok(format!("unknown command: 'info {name}'\n")),
    }
}

/// The value of a register in an expression; a part of one by its own name.
fn register(m: &Machine, name: &str) -> Option<u64> {
    const NAMES: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    const SEGS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
    let cpu = &m.vcpu().cpu;
    let gpr = |n: usize| cpu.reg(Reg::gpr(n as u8));
    let of = |name: &str| NAMES.iter().position(|n| *n == name).map(gpr);
    if let Some(seg) = SEGS.iter().position(|s| *s == name) {
        return Some(cpu.segs[Seg::ALL[seg] as usize].selector.into());
    }
    match (name, name.split_at_checked(1)) {
        ("pc", _) => Some(cpu.linear_rip()),
        ("rip" | "eip", _) => Some(cpu.rip()),
        ("rflags" | "eflags", _) => Some(cpu.rflags()),
        ("cr0", _) => Some(cpu.sys.cr0),
        ("cr2", _) => Some(cpu.sys.cr2),
        ("cr3", _) => Some(cpu.sys.cr3),
        ("cr4", _) => Some(cpu.sys.cr4),
        ("efer", _) => Some(cpu.sys.efer),
        (_, Some(("r", rest))) => match rest.parse() {
            Ok(n @ 8..16) => Some(gpr(n)),
            _ => of(rest),
        },
        (_, Some(("e", rest))) => of(rest).map(|v| v & 0xffff_ffff),
        _ => of(name).map(|v| v & 0xffff),
    }
}

/// Reads an expression of the arguments.
fn expr(monitor: &Monitor, args: &mut Args) -> Result<u64, Syntax> {
    let registers: Registers = &|name| {
        let name = name.to_owned();
        monitor.ask(move |m| register(m, &name)).ok().flatten()
    };
    args.expr(registers)
}

fn dump(monitor: &Monitor, mut args: Args, linear: bool) -> Answer {
    let format = args.format()?;
    let start = expr(monitor, &mut args)?;
    args.end()?;
    Ok(memory::dump(monitor, linear, format, start)?)
}

fn print(monitor: &Monitor, mut args: Args) -> Answer {
    let Format { form, .. } = args.format()?;
    let value = expr(monitor, &mut args)?;
    args.end()?;
    Ok(match form {
        'd' => format!("{}\n", value as i64),
        'u' => format!("{value}\n"),
        'o' => format!("0{value:o}\n"),
        'c' => format!("{}\n", memory::value('c', 1, value)),
        _ => format!("0x{value:x}\n"),
    })
}

fn sendkey(monitor: &Monitor, mut args: Args) -> Answer {
    let keys = args.need("keys")?;
    let hold = match args.is_empty() {
        true => 100,
        false => expr(monitor, &mut args)?,
    };
    args.end()?;
    let names: Vec<&str> = keys.split('-').collect();
    monitor.send_keys(&names, hold)?;
    Ok(String::new())
}

fn screendump(monitor: &Monitor, mut args: Args) -> Answer {
    let path = args.need("filename")?;
    act(args, || monitor.screendump(path.as_ref()))
}

fn eject(monitor: &Monitor, mut args: Args) -> Answer {
    args.flag("-f");
    let device = args.need("device")?;
    act(args, || monitor.change(&device, None, None, None))
}

fn change(monitor: &Monitor, mut args: Args) -> Answer {
    let (device, file) = (args.need("device")?, args.need("filename")?);
    let format = match args.word()?.as_deref() {
        None => None,
        Some("raw") => Some(block::Format::Raw),
        Some("qcow2") => Some(block::Format::Qcow2),
        Some(other) => return Err(format!("unknown format '{other}': raw or qcow2").into()),
    };
    let read_only = match args.word()?.as_deref() {
        None | Some("retain") => None,
        Some("read-only") => Some(true),
        Some("read-write") => Some(false),
        Some(other) => {
            let possible = "retain, read-only or read-write";
            return Err(format!("unknown read-only-mode '{other}': {possible}").into());
        }
    };
    act(args, || monitor.change(&device, Some(PathBuf::from(file)), format, read_only))
}

fn save(monitor: &Monitor, mut args: Args, linear: bool) -> Answer {
    let start = expr(monitor, &mut args)?;
    let size = expr(monitor, &mut args)?;
    let path = args.need("file")?;
    act(args, || monitor.save(linear, start, size, path.as_ref()))
}
