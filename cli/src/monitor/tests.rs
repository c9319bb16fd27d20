//! Each command over a machine that halts, and a whole conversation of QMP.

use super::server::{Kind, Socket};
use super::{Monitor, hmp};
use machine::{Boot, Machine, MachineConfig, Outcome};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;

/// A machine on a thread of its own; it ends with this.
struct Running {
    monitor: Monitor,
    control: machine::Control,
    thread: Option<JoinHandle<Outcome>>,
    quits: Arc<AtomicU32>,
    folder: PathBuf,
}

impl Running {
    /// Real mode at the reset vector: mov ax, 1234h; hlt; jmp to the hlt.
    fn new(name: &str) -> Running {
        let mut rom = vec![0; 0x1_0000];
        rom[0xfff0..0xfff6].copy_from_slice(&[0xb8, 0x34, 0x12, 0xf4, 0xeb, 0xfd]);
        let folder = std::env::temp_dir().join(format!("ring3-mon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("cd.iso"), vec![0x5a; 4096]).unwrap();
        let drives = ["media=cdrom,index=2".parse().unwrap()].to_vec();
        let config = MachineConfig {
            memory: 16 << 20,
            vga: Some(Arc::from([])),
            drives,
            ..MachineConfig::new(Boot::Rom(rom))
        };
        let mut machine = Machine::new(config).unwrap();
        let quits = Arc::new(AtomicU32::new(0));
        let count = quits.clone();
        let monitor = Monitor::new(&mut machine, move || {
            count.fetch_add(1, SeqCst);
        });
        let control = machine.control();
        let thread = std::thread::spawn(move || machine.run(None).unwrap());
        let running = Running { monitor, control, thread: Some(thread), quits, folder };
        while !running.hmp("info registers").contains("HLT=1") {
            std::thread::yield_now();
        }
        running
    }

    fn hmp(&self, line: &str) -> String {
        hmp::execute(&self.monitor, line)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.stop();
        let outcome = self.thread.take().unwrap().join().unwrap();
        assert_eq!(outcome, Outcome::Stopped);
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

#[test]
fn state_looks_as_in_qemu() {
    let r = Running::new("info");
    for (line, wants) in [
        ("info status", &["VM status: running\n"][..]),
        ("info version", &[env!("CARGO_PKG_VERSION")]),
        (
            "info registers",
            &[
                "CPU#0\nEAX=00001234 EBX=00000000 ",
                "EIP=0000fff4 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1",
                "\nCS =f000 ffff0000 0000ffff 00009300\n",
                "\nCR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\n",
                "FCW=0040",
                "XMM06=0000000000000000 0000000000000000 XMM07=",
            ],
        ),
        ("info mem", &["PG disabled\n"]),
        ("info tlb", &["PG disabled\n"]),
        (
            "info pic",
            &[
                "ioapic0: ver=0x20 id=0x00 sel=0x00\n",
                "  pin 0  0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical\n",
                "  Remote IRR (none)\n",
                "\npic0: irr=",
            ],
        ),
        (
            "info pci",
            &[
                "  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:1237\n",
                "    IDE controller: PCI device 8086:7010\n      PCI subsystem 1af4:1100\n",
                "    VGA controller: PCI device 1234:1111\n",
            ],
        ),
        (
            "info block",
            &["ide1-cd0: [not inserted]\n    Removable device: not locked, tray closed"],
        ),
        (
            "info mtree",
            &[
                "address-space: memory\n",
                "    0000000000000000-000000000009ffff (prio 0, ram): pc.ram\n",
                "    00000000ffff0000-00000000ffffffff (prio 0, rom): pc.bios\n",
                "address-space: I/O\n",
                "    00000000000003f8-00000000000003ff (prio 0, i/o): com(0)\n",
            ],
        ),
        ("info jit", &["blocks lifted", "cache bytes"]),
        ("info cpus", &["* CPU #0: thread_id="]),
        ("info", &["info pci  -- show PCI info\n"]),
        ("help", &["\nsendkey keys [hold_ms] -- send keys"]),
        ("help x", &["x /fmt addr -- "]),
        ("help info pic", &["info pic  -- show PIC state\n"]),
    ] {
        let got = r.hmp(line);
        for want in wants {
            assert!(got.contains(want), "{line}: no {want:?} in\n{got}");
        }
    }
}

#[test]
fn memory_is_shown_and_saved() {
    let r = Running::new("memory");
    for (line, want) in [
        ("xp /6xb 0xfffffff0", "00000000fffffff0: 0xb8 0x34 0x12 0xf4 0xeb 0xfd\n"),
        (
            "x/2i 0xfffffff0",
            "0xfffffff0:  b8 34 12                 mov ax,1234h\n0xfffffff3:  f4                       hlt\n",
        ),
        ("x /xh $pc - 3", "00000000fffffff1: 0x1234\n"),
        ("xp /2dw 0", "0000000000000000:          0          0\n"),
        // Without paging a linear address has 32 bits: this is the ROM again.
        ("x /xw 0x1fffffff0", "00000001fffffff0: 0xf41234b8\n"),
        ("p /x $eax * 2 + 1", "0x2469\n"),
        ("p 10", "0xa\n"),
        ("p/d 0 - 5", "-5\n"),
        ("p /c 65", "'A'\n"),
        ("print /o 8", "010\n"),
        ("xp /0xb 0", ""),
    ] {
        assert_eq!(r.hmp(line), want, "{line}");
    }
    let file = r.path("saved");
    for command in ["memsave", "pmemsave"] {
        assert_eq!(r.hmp(&format!("{command} 0xfffffff0 6 \"{file}\"")), "");
        assert_eq!(std::fs::read(&file).unwrap(), [0xb8, 0x34, 0x12, 0xf4, 0xeb, 0xfd]);
    }
    assert_eq!(r.hmp(&format!("pmemsave 0 0x280000 {file}")), "");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0x28_0000);
}

#[test]
fn the_machine_obeys() {
    let r = Running::new("control");
    assert_eq!(
        (r.hmp("stop"), r.hmp("info status")),
        (String::new(), "VM status: paused\n".into())
    );
    // A reset while it stands still: nothing has run yet.
    assert_eq!(r.hmp("system_reset"), "");
    let registers = r.hmp("info registers");
    assert!(registers.contains("EIP=0000fff0") && registers.contains("HLT=0"), "{registers}");
    assert_eq!(
        (r.hmp("cont"), r.hmp("info status")),
        (String::new(), "VM status: running\n".into())
    );
    assert_eq!(r.hmp("system_powerdown"), "", "nobody listens to the button");
    assert_eq!(r.hmp("sendkey ctrl-alt-delete 1"), "");
    let file = r.path("screen.ppm");
    let png = r.path("screen.png");
    assert_eq!(r.hmp(&format!("screendump {png}")), "");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(r.hmp(&format!("screendump {file}")), "");
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"P6\n"), "a portable pixmap");
    let iso = r.path("cd.iso");
    assert_eq!(r.hmp(&format!("change ide1-cd0 {iso} raw read-only")), "");
    let block = r.hmp("info block");
    assert!(block.starts_with(&format!("ide1-cd0: {iso} (raw, read-only)\n")), "{block}");
    assert_eq!(r.hmp("eject -f ide1-cd0"), "");
    assert!(r.hmp("info block").contains("[not inserted]"));
    assert_eq!((r.hmp("quit"), r.monitor.quits()), (String::new(), true));
}

#[test]
fn bad_input_gets_a_clear_line() {
    let r = Running::new("bad");
    for (line, says) in [
        ("foo", "unknown command: 'foo'\n"),
        ("info foo", "unknown command: 'info foo'\n"),
        ("xp", "unexpected end of expression\nTry \"help xp\" for more information\n"),
        ("xp /4q 0", "invalid char in format: 'q'\n"),
        ("p $nope", "unknown register\n"),
        ("p 1/0", "division by zero\n"),
        ("p 1 2", "extraneous characters at the end of line\n"),
        ("xp /9999999xg 0", "Error: more than 1048576 bytes at once\n"),
        ("sendkey nokey", "Error: invalid parameter: nokey\n"),
        ("sendkey", "keys is missing\n"),
        ("eject nope", "Error: Device 'nope' not found\n"),
        ("change ide1-cd0 /nonexistent/x", "Error: /nonexistent/x: there is no such file\n"),
        ("change ide1-cd0 x vmdk", "unknown format 'vmdk'"),
        ("screendump /nonexistent/x.ppm", "Error: failed to open file '/nonexistent/x.ppm'"),
        ("pmemsave 0 1 /nonexistent/x", "Error: failed to open file '/nonexistent/x'"),
        ("stop now", "extraneous characters"),
        ("help \"x", "unterminated string\n"),
        ("é\u{1}\u{7f}", "unknown command"),
        ("\"", "unterminated string\n"),
        ("", ""),
        ("help nope", ""),
    ] {
        let got = r.hmp(line);
        assert!(got.starts_with(says) && got.lines().count() <= 2, "{line}: {got}");
    }
}

#[test]
fn a_line_is_edited() {
    let mut editor = hmp::Editor::default();
    let mut typed = |keys: &[u8]| {
        let all = keys.iter().map(|&k| editor.key(k)).collect::<Vec<_>>();
        let shown: String = all.iter().map(|(shown, _)| shown.as_str()).collect();
        (shown, all.into_iter().filter_map(|(_, line)| line).collect::<Vec<_>>())
    };
    assert_eq!(typed(b"ab\x7fc\r"), ("ab\x08 \x08c\n".into(), vec!["ac".to_owned()]));
    assert_eq!(typed(b"xy\x15\x08\n"), ("xy\x08 \x08\x08 \x08\n".into(), vec![String::new()]));
    assert_eq!(typed(b"\x1b[A\x1b[B\n"), ("ac\n".into(), vec!["ac".to_owned()]));
}

#[test]
fn people_use_a_stream() {
    let r = Running::new("stream");
    let mut out = Vec::new();
    hmp::serve(&r.monitor, &b"info status\n\nquit\n"[..], &mut out, "\r\n").unwrap();
    let text = String::from_utf8(out).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let greeting =
        format!("Ring3 {version} monitor - type 'help' for more information\r\n(ring3) ");
    assert_eq!(text, greeting + "VM status: running\r\n(ring3) (ring3) (ring3) ");
    assert_eq!(r.quits.load(SeqCst), 1);
    let long = [b'x'; 100_000];
    let mut out = Vec::new();
    hmp::serve(&r.monitor, &long[..], &mut out, "\n").unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with("the command line is too long\n"));
}

/// A client of QMP.
struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn connect(path: &str) -> Client {
        let mut client = Client { stream: BufReader::new(UnixStream::connect(path).unwrap()) };
        let greeting = client.line();
        assert_eq!(greeting["QMP"]["version"]["qemu"]["major"], 7, "{greeting}");
        client
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn put(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn ask(&mut self, command: Value) -> Value {
        // No line end: clients need not send one.
        self.put(&command.to_string());
        self.line()
    }

    fn run(&mut self, name: &str, arguments: Value) -> Value {
        self.ask(json!({"execute": name, "arguments": arguments}))
    }
}

#[test]
fn programs_speak_qmp() {
    let r = Running::new("qmp");
    let path = r.path("qmp.sock");
    let socket = Socket::bind(path.as_ref(), false).unwrap();
    let file = socket.serve(&r.monitor, Kind::Json).unwrap();
    let (mut one, mut two) = (Client::connect(&path), Client::connect(&path));
    let early = one.run("query-status", json!({}));
    assert_eq!(early["error"]["class"], "CommandNotFound", "{early}");
    for client in [&mut one, &mut two] {
        assert_eq!(client.run("qmp_capabilities", json!({})), json!({"return": {}}));
    }
    let status = one.ask(json!({"execute": "query-status", "id": [1, "a"]}));
    let want = json!({"status": "running", "singlestep": false, "running": true});
    assert_eq!(status, json!({"return": want, "id": [1, "a"]}));

    // Both are told of events, the one who asked before its answer.
    assert_eq!(one.run("stop", json!({}))["event"], "STOP");
    assert_eq!(one.line(), json!({"return": {}}));
    let event = two.line();
    assert_eq!(event["event"], "STOP");
    assert!(event["timestamp"]["seconds"].as_u64() > Some(1_600_000_000), "{event}");
    assert_eq!(one.run("query-status", json!({}))["return"]["status"], "paused");
    assert_eq!(one.run("system_reset", json!({}))["event"], "RESET");
    assert_eq!(one.line(), json!({"return": {}}));
    assert_eq!(two.line()["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    assert_eq!(two.run("cont", json!({}))["event"], "RESUME");
    assert_eq!(two.line(), json!({"return": {}}));
    assert_eq!(one.line()["event"], "RESUME");
    assert_eq!(one.run("system_powerdown", json!({}))["event"], "POWERDOWN");
    assert_eq!(one.line(), json!({"return": {}}));
    assert_eq!(two.line()["event"], "POWERDOWN");

    let (iso, saved, screen) = (r.path("cd.iso"), r.path("saved"), r.path("s.ppm"));
    let medium = json!({"device": "ide1-cd0", "filename": iso, "format": "raw"});
    assert_eq!(one.run("blockdev-change-medium", medium), json!({"return": {}}));
    let block = &one.run("query-block", json!({}))["return"][0];
    assert_eq!(block["inserted"]["image"]["virtual-size"], 4096, "{block}");
    assert_eq!((&block["device"], &block["inserted"]["drv"]), (&json!("ide1-cd0"), &json!("raw")));
    for (name, arguments) in [
        ("eject", json!({"id": "ide1-cd0", "force": true})),
        ("pmemsave", json!({"val": 0xffff_fff0_u32, "size": 3, "filename": saved})),
        ("screendump", json!({"filename": screen})),
        ("send-key", json!({"keys": [{"type": "qcode", "data": "a"}], "hold-time": 1})),
        ("send-key", json!({"keys": [{"type": "number", "data": 0x1e}], "hold-time": 1})),
    ] {
        assert_eq!(one.run(name, arguments), json!({"return": {}}), "{name}");
    }
    assert_eq!(std::fs::read(&saved).unwrap(), [0xb8, 0x34, 0x12]);
    let human = one.run("human-monitor-command", json!({"command-line": "info status"}));
    assert_eq!(human, json!({"return": "VM status: running\r\n"}));
    let commands = one.run("query-commands", json!({}));
    assert!(commands["return"].as_array().unwrap().contains(&json!({"name": "quit"})));
    assert_eq!(one.run("query-cpus-fast", json!({}))["return"][0]["cpu-index"], 0);

    // Errors are QEMU's.
    let text = "Parameter 'filename' is missing";
    for (name, arguments, class, desc) in [
        ("nope", json!({}), "CommandNotFound", "The command nope has not been found"),
        ("eject", json!({"id": "x"}), "DeviceNotFound", "Device 'x' not found"),
        ("eject", json!({}), "GenericError", "Need exactly one of 'device' and 'id'"),
        ("stop", json!({"x": 1}), "GenericError", "Parameter 'x' is unexpected"),
        ("screendump", json!({}), "GenericError", text),
        (
            "pmemsave",
            json!({"val": "0", "size": 1, "filename": ""}),
            "GenericError",
            "Invalid parameter type for 'val', expected: integer",
        ),
        ("stop", json!([]), "GenericError", "QMP input member 'arguments' must be an object"),
    ] {
        let want = json!({"error": {"class": class, "desc": desc}});
        assert_eq!(one.run(name, arguments), want, "{name}");
    }
    assert_eq!(one.ask(json!([1]))["error"]["desc"], "QMP input must be a JSON object");
    assert_eq!(one.ask(json!({"a": 1}))["error"]["class"], "GenericError");
    one.put("{\"execute\": oops}\n");
    let error = one.line();
    assert!(error["error"]["desc"].as_str().unwrap().starts_with("JSON parse error"), "{error}");

    assert_eq!(one.run("quit", json!({})), json!({"return": {}}));
    while r.quits.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    r.monitor.ended(false);
    assert_eq!(two.line()["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
    drop(file);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn who_waits_for_a_machine_that_has_ended_is_told() {
    let r = Running::new("ended");
    r.monitor.ended(true);
    while r.hmp("info pic").starts_with("ioapic") {}
    assert_eq!(r.hmp("info pic"), "Error: the machine has ended\n");
}
