//! Boots a guest in this process and does its steps.

use super::{Guest, Place, Step};
use clap::Parser;
use display::keys;
use machine::{Buffer, Control, Engine, Key, Machine, Outcome};
use ring3::run::Run;
use std::time::{Duration, Instant};

/// How a guest went.
#[derive(Clone, Debug)]
pub struct Played {
    /// From the machine's start to the last sign of life.
    pub time: Duration,
}

/// How often signs are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// Between two keys, so that slow readers see both.
const KEY: Duration = Duration::from_millis(30);

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    run: Run,
}

/// Boots a guest on an engine.
///
/// # Errors
/// What was not seen within `limit`, with what was there instead.
pub fn play(guest: &Guest, engine: Engine, limit: Duration) -> anyhow::Result<Played> {
    let arguments = guest.arguments()?;
    let words = ["run".to_owned()].into_iter().chain(arguments);
    let mut config = Command::try_parse_from(words)?.run.config()?;
    config.engine = engine;
    let start = Instant::now();
    let mut machine = Machine::new(config)?;
    let serial = Buffer::default();
    machine.connect_serial(0, Box::new(serial.clone()));
    let control = machine.control();
    let mut seen = 0;
    for step in guest.steps {
        match *step {
            Step::Keys(names) => names.split(' ').try_for_each(|name| {
                press(&control, name)?;
                machine.run(Some(KEY))?;
                anyhow::Ok(())
            })?,
            Step::Types(text) => control.send(0, text.as_bytes()),
            Step::Sees(place, text) => loop {
                let found = match place {
                    Place::Screen => screen(&machine).contains(text),
                    Place::Serial => {
                        let all = serial.text();
                        let at = all.get(seen..).and_then(|rest| rest.find(text));
                        at.map(|at| seen += at + text.len()).is_some()
                    }
                };
                if found {
                    break;
                }
                let outcome = machine.run(Some(LOOK))?;
                if outcome != Outcome::Timeout || start.elapsed() > limit {
                    let last: Vec<String> =
                        serial.text().lines().rev().take(12).map(str::to_owned).collect();
                    let last: Vec<String> = last.into_iter().rev().collect();
                    anyhow::bail!(
                        "{}: `{text}` was not seen ({outcome:?})\nserial:\n{}\nscreen:\n{}",
                        guest.name,
                        last.join("\n"),
                        screen(&machine)
                    );
                }
            },
        }
    }
    Ok(Played { time: start.elapsed() })
}

fn press(control: &Control, name: &str) -> anyhow::Result<()> {
    let chord = keys::chord(name).map_err(anyhow::Error::msg)?;
    control.press(chord.into_iter().map(|k| Key { code: k.code, pressed: k.pressed }));
    Ok(())
}

/// The text on the screen, a line each.
fn screen(machine: &Machine) -> String {
    let Some(t) = machine.board().text_screen() else { return String::new() };
    let character = |&(c, _): &(u8, u8)| if (0x20..0x7f).contains(&c) { c.into() } else { ' ' };
    let line = |row: &[(u8, u8)]| row.iter().map(character).collect::<String>();
    let lines: Vec<String> = t.cells.chunks(t.columns.max(1)).map(line).collect();
    lines.iter().map(|l| l.trim_end()).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n")
}
