//! The terminal: taken, drawn on, and given back whatever happens.

use std::io::{IsTerminal, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

use crate::args::By;
use crate::sample::Sample;
use crate::sixteen::Sixteen;
use crate::state::{State, Then};
use crate::view::{self, Look};
use crate::{Args, Error, ErrorKind, Result, collect};

/// How long a key may wait for a sample, and a sample or signal for a key.
const TURN: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let what = "there is no terminal to draw on: use --once, or --once --json";
        return Err(Error::new(ErrorKind::Usage, what));
    }
    let (want, wanted) = mpsc::channel();
    let (send, samples) = mpsc::channel();
    let of_collector = args.clone();
    std::thread::Builder::new()
        .name("collector".into())
        .spawn(move || collect::run(&of_collector, &wanted, &send))
        .map_err(|e| Error::system("cannot start a thread", &e))?;
    // What keeps it from watching is said on the terminal as it was.
    let first = samples.recv().map_err(|_| ended())??;
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
            .map_err(|e| Error::system("cannot handle signals", &e))?;
    }
    let seen = Arc::clone(&signal);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || end_if_stuck(&seen))
        .map_err(|e| Error::system("cannot start a thread", &e))?;
    let mut state = State::new(args.by, args.sort, &args.filter);
    state.take(first);
    let mut terminal = take()?;
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        give_back();
        others(info);
    }));
    let look = Look::here(args.ascii);
    let done = show(&mut terminal, &mut state, look, &samples, &want, &signal);
    give_back();
    if let Some(number) = done? {
        // As if nobody had handled it, so that who waits for us is told the truth.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    Ok(())
}

/// crossterm reads again and again, and for ever, from a terminal that is gone (an SSH session that broke off): then
/// nobody takes the signal that says so, and a CPU is busy. Whoever does not take it within a second is ended by it.
fn end_if_stuck(signal: &AtomicUsize) {
    let mut turns = 0;
    loop {
        std::thread::sleep(5 * TURN);
        let number = signal.load(Ordering::SeqCst) as i32;
        turns = if number == 0 || number == SIGTSTP { 0 } else { turns + 1 };
        if turns >= 4 {
            give_back();
            let _ = signal_hook::low_level::emulate_default_handler(number);
        }
    }
}

type Screen = Terminal<CrosstermBackend<Sixteen<Stdout>>>;

/// Raw mode and the other screen.
fn take() -> Result<Screen> {
    let taken = ratatui::try_init()
        .and_then(|_| Terminal::new(CrosstermBackend::new(Sixteen::new(std::io::stdout()))));
    taken.map_err(|e| {
        give_back();
        Error::system("cannot draw on the terminal", &e)
    })
}

/// What went wrong with it is of no interest any more. Drawing hides the cursor, and who ends by a signal or a panic
/// drops nothing that would show it again.
fn give_back() {
    let _ = execute!(std::io::stdout(), Show);
    ratatui::restore();
}

fn ended() -> Error {
    Error::new(ErrorKind::System, "the thread that looks at the machine has ended")
}

/// Until a key or a signal ends it: which signal.
fn show(
    terminal: &mut Screen,
    state: &mut State,
    look: Look,
    samples: &Receiver<Result<Sample>>,
    want: &Sender<By>,
    signal: &AtomicUsize,
) -> Result<Option<i32>> {
    let failed = |e: std::io::Error| Error::system("the terminal is gone", &e);
    let mut changed = true;
    loop {
        if changed {
            terminal.draw(|frame| view::draw(frame, state, look)).map_err(failed)?;
        }
        let mut then = Then::Draw;
        changed = event::poll(TURN).map_err(failed)?;
        if changed
            && let Event::Key(key) = event::read().map_err(failed)?
            && key.kind != KeyEventKind::Release
        {
            let size = terminal.size().map_err(failed)?;
            then = state.key(key, view::page_size(state, size.width, size.height));
        }
        match signal.swap(0, Ordering::SeqCst) as i32 {
            0 => {}
            SIGTSTP => then = Then::Stop,
            number => return Ok(Some(number)),
        }
        match then {
            Then::Draw => {}
            Then::End => return Ok(None),
            Then::Look => want.send(state.by).map_err(|_| ended())?,
            Then::Stop => stop(terminal)?,
        }
        match samples.try_recv() {
            Ok(sample) => {
                state.take(sample?);
                changed = true;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(ended()),
        }
    }
}

/// Gives the terminal back, stops until somebody says `fg`, and takes it again.
fn stop(terminal: &mut Screen) -> Result<()> {
    give_back();
    let stopped = signal_hook::low_level::emulate_default_handler(SIGTSTP);
    *terminal = take()?;
    terminal.clear().and(stopped).map_err(|e| Error::system("cannot stop", &e))
}
