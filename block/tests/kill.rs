//! A process that writes to an image is killed, again and again: what it was told is flushed is
//! there, and `qemu-img` finds no errors.
//!
//! The program runs itself as the victim, which writes numbered sectors, flushes now and then, and
//! prints the number up to which all is flushed. Zeroing and discarding make clusters come and go.
//! The number of kills of each format can be given: `cargo test -p block --test kill -- 200`.

mod common;

use common::{Rng, Waited, qemu_img, qemu_img_ok};
use devices::disk::Request;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Sectors of the image. Each number is written to the place that it says.
const SECTORS: u64 = 8192;

/// Numbers are spread over the image so that clusters are partly filled.
fn place(number: u64) -> u64 {
    number * 1031 % (SECTORS / 2) * 512
}

fn sector(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(64)
}

fn victim(path: &Path, first: u64) {
    let mut disk = Waited::open(path, &block::Options::default(), true);
    let mut rng = Rng(first + 1);
    for number in first.. {
        disk.write(place(number), sector(number));
        match rng.below(12) {
            0 => {
                assert_eq!(disk.serve(Request::Flush), Ok(vec![]));
                println!("{number}");
                std::io::stdout().flush().unwrap();
            }
            // In the other half, which nobody reads.
            1 | 2 => {
                let offset = (SECTORS / 2 + rng.below(SECTORS / 2 - 300)) * 512;
                let len = rng.below(300) * 512;
                let all = Request::Discard { offset, len };
                let zero = Request::WriteZeroes { offset, len, unmap: rng.below(2) == 0 };
                disk.serve(if rng.below(2) == 0 { all } else { zero }).unwrap();
                disk.write(offset, vec![9; 512 * rng.below(200) as usize]);
            }
            _ => {}
        }
    }
}

/// The last number that was flushed, of all that the victim has said before it died.
fn kill(path: &Path, first: u64, after: Duration) -> Option<u64> {
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new(me)
        .args(["victim", path.to_str().unwrap(), &first.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It has begun, at least.
    let begun = lines.next().map(|l| l.unwrap().parse().unwrap());
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    let rest: Vec<String> = lines.map(|l| l.unwrap()).collect();
    rest.last().map(|l| l.parse().unwrap()).or(begun)
}

fn play(dir: &Path, kind: &str, options: &str, kills: u64) {
    let path = dir.join(kind);
    let size = SECTORS * 512;
    qemu_img_ok(dir, &format!("create -f {kind}{options} {kind} {size}"));
    let (mut rng, mut first) = (Rng(5), 1);
    for round in 0..kills {
        let last = kill(&path, first, Duration::from_micros(rng.below(20_000)));
        let last = last.expect("the victim says something");
        if kind == "qcow2" {
            let out = qemu_img(dir, "check qcow2");
            // 3: clusters are lost, which harms nobody.
            assert!([Some(0), Some(3)].contains(&out.status.code()), "kill {round}: {out:?}");
        }
        let mut disk = Waited::open(&path, &block::Options::default(), false);
        // What was flushed is there, or something newer.
        for number in last.saturating_sub(SECTORS / 2 - 1).max(1)..=last {
            let bytes = disk.read(place(number), 512);
            let found = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let newer = found > last && place(found) == place(number);
            assert!(found == number || newer, "kill {round}: {found} for {number}");
            assert_eq!(bytes, sector(found), "kill {round}");
        }
        first = last + 1;
    }
    println!("{kind}{options}: {kills} kills, {first} flushed sectors are there");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, path, first] = &args[..]
        && mode == "victim"
    {
        return victim(path.as_ref(), first.parse().unwrap());
    }
    if args.iter().any(|a| a == "--list") {
        return println!("kill: test");
    }
    let kills = args.iter().find_map(|a| a.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().unwrap();
    play(dir.path(), "raw", "", kills);
    play(dir.path(), "qcow2", "", kills);
    std::fs::remove_file(dir.path().join("qcow2")).unwrap();
    play(dir.path(), "qcow2", " -o cluster_size=4096", kills);
    std::fs::write(dir.path().join("base"), vec![0; (SECTORS * 512) as usize]).unwrap();
    std::fs::remove_file(dir.path().join("qcow2")).unwrap();
    play(dir.path(), "qcow2", " -b base -F raw", kills);
}
