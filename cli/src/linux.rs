//! `ring3 linux`: Debian's kernel with a shell, or one command, without any configuration.

use crate::debian::{self, ExecOutput};
use crate::options::{HostEnd, MachineOptions, usage};
use crate::screen::ScreenOptions;
use crate::session::{SerialEnd, Session};
use machine::{Boot, Buffer, Kernel, MachineConfig};
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Boot Debian's kernel to a shell
///
/// Kernel and busybox are fetched with apt-get as an ordinary user at the first start, and come
/// from the user's cache after that. On a terminal, Ctrl-A x quits and Ctrl-A h shows the other
/// keys.
#[derive(Debug, clap::Args)]
pub struct Linux {
    /// Run a shell command in the guest, print its output and exit with its status
    #[arg(long, value_name = "CMD")]
    pub exec: Option<String>,

    /// Which of Debian's kernels, with a busybox to match
    #[arg(long, value_enum, default_value = "amd64")]
    pub arch: debian::Arch,

    /// Words to add to the kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub append: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub machine: MachineOptions,
}

/// Lines of the guest's console that are shown when a command did not end.
const LAST_WORDS: usize = 20;

impl Linux {
    /// Runs the command; gives the exit status.
    ///
    /// # Errors
    /// One line for the user.
    pub fn run(self) -> anyhow::Result<u8> {
        let cpu = self.machine.cpu.model();
        if let Some(missing) = self.arch.needs().without(cpu.features).name() {
            let (model, hint) = (cpu.model().name, self.arch.hint(cpu.features));
            return usage(format!("this kernel needs a CPU with {missing}, not {model}{hint}"));
        }
        let guest = debian::linux_guest(&debian::Options {
            arch: self.arch,
            exec: self.exec.clone(),
            terminal: self.exec.is_none().then(terminal).flatten(),
        })?;
        let boot = Boot::Kernel(Kernel {
            image: guest.kernel,
            initrd: Some(guest.initrd),
            cmdline: format!("{} {}", guest.append, self.append).trim_end().to_owned(),
            name: format!("Linux {}", guest.kernel_version),
            ..Kernel::default()
        });
        let config = MachineConfig { no_reboot: true, ..self.machine.config(boot) };
        let session = |serial| Session {
            config,
            serial,
            inputs: Vec::new(),
            options: &self.machine,
            screen: ScreenOptions::default(),
        };
        if self.exec.is_none() {
            return session(vec![SerialEnd::Host(HostEnd::Stdio)]).run();
        }
        let (console, output) = (Buffer::default(), ExecSink::default());
        let ends = [Box::new(console.clone()) as Box<dyn Write + Send>, Box::new(output.clone())];
        let status = session(ends.into_iter().map(SerialEnd::Writer).collect()).run()?;
        if status != 0 {
            return Ok(status);
        }
        if let Some(status) = output.finish()? {
            return Ok(status);
        }
        let text = console.text();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
        anyhow::bail!("the guest ended before the command did\n{}", last.join("\n"))
    }
}

/// The terminal that the guest's shell will be on.
fn terminal() -> Option<debian::Terminal> {
    let size = io::stdin().is_terminal().then(|| tcgetwinsize(rustix::stdio::stdin()).ok())??;
    (size.ws_row > 0 && size.ws_col > 0).then(|| debian::Terminal {
        rows: size.ws_row,
        columns: size.ws_col,
        name: std::env::var("TERM").unwrap_or_default(),
    })
}

/// A serial port that carries the output of a command: passes it on to standard output.
#[derive(Clone, Default)]
struct ExecSink(Arc<Mutex<ExecOutput>>);

impl ExecSink {
    /// Passes on the rest; gives the command's status.
    fn finish(self) -> io::Result<Option<u8>> {
        let mut rest = Vec::new();
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = std::mem::take(&mut *output).finish(&mut rest);
        io::stdout().write_all(&rest)?;
        io::stdout().flush()?;
        Ok(status)
    }
}

impl Write for ExecSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes, &mut text);
        io::stdout().write_all(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
