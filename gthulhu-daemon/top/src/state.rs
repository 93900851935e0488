//! What is on the screen, and what each key changes of it.

use gthulhu_monitor::Counts;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::args::{By, Sort};
use crate::history::History;
use crate::rows::{self, Row};
use crate::sample::Sample;

/// Everything that is drawn comes from here.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) by: By,
    pub(crate) sort: Sort,
    pub(crate) reverse: bool,
    pub(crate) filter: String,
    /// Keys are letters of the filter.
    pub(crate) typing: bool,
    pub(crate) page: Page,
    /// Nothing new is taken.
    pub(crate) paused: bool,
    pub(crate) sample: Option<Sample>,
    /// What is in the table: of the sample, by `by`, filtered and sorted.
    pub(crate) rows: Vec<Row>,
    /// How many there were before the filter.
    pub(crate) unfiltered: usize,
    /// The row that the cursor is on, wherever it goes; `None`: on the first.
    pub(crate) selected: Option<String>,
    pub(crate) history: History,
}

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) enum Page {
    Table,
    Help,
    Scheduler,
    Detail(Box<Detail>),
}

/// One row, looked at closely from when it was chosen on.
#[derive(Debug, Clone)]
pub(crate) struct Detail {
    /// As it was when it was last there.
    pub(crate) row: Row,
    /// Of its group, if it is a thread.
    pub(crate) counts: Counts,
    /// Who ran while it waited, and for how long in ns; most first.
    pub(crate) blamed: Vec<(String, u64)>,
    pub(crate) seconds: f64,
    /// It is not there any more.
    pub(crate) gone: bool,
}

/// What the caller has to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Draw,
    End,
    /// Something else is asked for: have it looked at.
    Look,
    /// Give the terminal back and stop, as Ctrl-Z does.
    Stop,
}

impl State {
    pub(crate) fn new(by: By, sort: Sort, filter: &str) -> Self {
        Self {
            by,
            sort,
            reverse: false,
            filter: filter.to_owned(),
            typing: false,
            page: Page::Table,
            paused: false,
            sample: None,
            rows: Vec::new(),
            unfiltered: 0,
            selected: None,
            history: History::default(),
        }
    }

    /// Takes what was seen in another interval.
    pub(crate) fn take(&mut self, sample: Sample) {
        if self.paused {
            return;
        }
        let looked_at = |by: &By| *by != By::Threads || sample.threads.is_some();
        let by_rows: Vec<(By, Vec<Row>)> =
            By::ALL.into_iter().filter(looked_at).map(|by| (by, rows::rows(&sample, by))).collect();
        self.history.take(&sample, &by_rows);
        if let Page::Detail(detail) = &mut self.page {
            let rows = by_rows.iter().find(|(by, _)| *by == self.by).map_or(&[][..], |(_, rows)| rows);
            detail.take(&sample, rows, self.by);
        }
        self.sample = Some(sample);
        self.arrange();
    }

    /// Makes the rows anew.
    fn arrange(&mut self) {
        let Some(sample) = &self.sample else { return };
        self.rows = rows::rows(sample, self.by);
        self.unfiltered = self.rows.len();
        rows::select(&mut self.rows, &self.filter, self.sort, self.reverse);
    }

    /// Where the cursor is.
    pub(crate) fn cursor(&self) -> usize {
        let at = self.selected.as_ref().and_then(|key| self.rows.iter().position(|row| row.key == *key));
        at.unwrap_or(0)
    }

    /// What a key does. `page` is how many rows there are on the screen.
    pub(crate) fn key(&mut self, key: KeyEvent, page: usize) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Then::End,
                KeyCode::Char('z') => Then::Stop,
                _ => Then::Draw,
            };
        }
        if self.typing {
            self.letter(key.code);
            return Then::Draw;
        }
        match (&self.page, key.code) {
            (Page::Table, KeyCode::Esc) if !self.filter.is_empty() => self.filter.clear(),
            (Page::Table, KeyCode::Esc | KeyCode::Char('q')) => return Then::End,
            // Everywhere else both lead back to the table.
            (_, KeyCode::Esc | KeyCode::Char('q')) => self.page = Page::Table,
            (Page::Help, KeyCode::Char('?'))
            | (Page::Scheduler, KeyCode::Char('p'))
            | (_, KeyCode::Enter)
                if !matches!(self.page, Page::Table) =>
            {
                self.page = Page::Table;
            }
            (_, KeyCode::Char('?')) => self.page = Page::Help,
            (_, KeyCode::Char('p')) => self.page = Page::Scheduler,
            (_, KeyCode::Char(' ')) => self.paused = !self.paused,
            (Page::Table, code) => return self.table_key(code, page),
            _ => {}
        }
        self.arrange();
        Then::Draw
    }

    fn table_key(&mut self, code: KeyCode, page: usize) -> Then {
        let page = page.max(1) as isize;
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-page),
            KeyCode::PageDown => self.step(page),
            KeyCode::Home => self.selected = None,
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Enter => self.open(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('d') => self.sort = Sort::Delay,
            KeyCode::Char('c') => self.sort = Sort::Cpu,
            KeyCode::Char('w') => self.sort = Sort::Wait,
            KeyCode::Char('s') => self.sort = Sort::Switches,
            KeyCode::Char('m') => self.sort = Sort::Migrations,
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char(digit @ '1'..='4') => return self.look_by(By::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => return self.look_by(By::ALL[(self.by as usize + 1) % By::ALL.len()]),
            KeyCode::BackTab => return self.look_by(By::ALL[(self.by as usize + 3) % By::ALL.len()]),
            _ => {}
        }
        self.arrange();
        Then::Draw
    }

    fn look_by(&mut self, by: By) -> Then {
        if by == self.by {
            return Then::Draw;
        }
        self.by = by;
        self.selected = None;
        self.arrange();
        Then::Look
    }

    fn step(&mut self, rows: isize) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let at = self.cursor().saturating_add_signed(rows).min(last);
        self.selected = Some(self.rows[at].key.clone());
    }

    fn open(&mut self) {
        let (Some(sample), Some(row)) = (&self.sample, self.rows.get(self.cursor())) else { return };
        let mut detail = Detail {
            row: row.clone(),
            counts: Counts::default(),
            blamed: Vec::new(),
            seconds: 0.0,
            gone: false,
        };
        detail.take(sample, std::slice::from_ref(row), self.by);
        self.selected = Some(row.key.clone());
        self.page = Page::Detail(Box::new(detail));
    }

    fn letter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !c.is_control() => self.filter.push(c),
            KeyCode::Up => self.step(-1),
            KeyCode::Down => self.step(1),
            _ => {}
        }
        self.arrange();
    }
}

impl Detail {
    fn take(&mut self, sample: &Sample, rows: &[Row], by: By) {
        self.seconds += sample.elapsed.as_secs_f64();
        self.gone = true;
        let Some(row) = rows.iter().find(|row| row.key == self.row.key) else { return };
        self.gone = false;
        for group in sample.groups.iter().filter(|group| row.ids.contains(&group.id)) {
            self.counts.add(&group.counts);
        }
        for (name, ns) in rows::blamed(sample, row, by) {
            match self.blamed.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += ns,
                None => self.blamed.push((name, ns)),
            }
        }
        self.blamed.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.row = row.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn state() -> State {
        let mut state = State::new(By::Groups, Sort::Delay, "");
        state.take(fixture::sample());
        state
    }

    fn press(state: &mut State, code: KeyCode) -> Then {
        state.key(KeyEvent::new(code, KeyModifiers::NONE), 5)
    }

    fn letters(state: &mut State, text: &str) {
        text.chars().for_each(|c| assert_ne!(press(state, KeyCode::Char(c)), Then::End));
    }

    fn first(state: &State) -> &str {
        &state.rows[0].name
    }

    #[test]
    fn each_sort_key_puts_what_has_most_of_it_first() {
        let mut state = state();
        for (key, sort) in "dcwsm".chars().zip(Sort::ALL) {
            press(&mut state, KeyCode::Char(key));
            assert_eq!(state.sort, sort);
            let values: Vec<f64> = state.rows.iter().map(|row| row.load.by(sort)).collect();
            assert!(values.is_sorted_by(|a, b| a >= b) && values[0] > values[values.len() - 1], "{values:?}");
        }
        let most = first(&state).to_owned();
        press(&mut state, KeyCode::Char('r'));
        assert_eq!(state.rows.last().unwrap().name, most);
    }

    #[test]
    fn the_cursor_stays_on_its_row_wherever_that_goes() {
        let mut state = state();
        assert_eq!(state.cursor(), 0);
        press(&mut state, KeyCode::Down);
        press(&mut state, KeyCode::Char('j'));
        press(&mut state, KeyCode::Up);
        let row = state.rows[1].key.clone();
        assert_eq!(state.selected.as_deref(), Some(row.as_str()));
        press(&mut state, KeyCode::Char('r'));
        assert_eq!(state.rows[state.cursor()].key, row);
        press(&mut state, KeyCode::PageDown);
        press(&mut state, KeyCode::End);
        assert_eq!(state.cursor(), state.rows.len() - 1);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.cursor(), state.rows.len() - 1);
        press(&mut state, KeyCode::Home);
        press(&mut state, KeyCode::Up);
        assert_eq!(state.cursor(), 0);
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut state = state();
        let all = state.rows.len();
        press(&mut state, KeyCode::Char('/'));
        letters(&mut state, "CARTq");
        press(&mut state, KeyCode::Backspace);
        assert_eq!((state.rows.len(), first(&state)), (1, "shop/cart-7d9c8b6f5-x2x7k"));
        press(&mut state, KeyCode::Enter);
        assert!(!state.typing);
        state.take(fixture::sample());
        assert_eq!((state.rows.len(), state.unfiltered), (1, all));
        assert_eq!(press(&mut state, KeyCode::Esc), Then::Draw);
        assert_eq!(state.rows.len(), all);
        letters(&mut state, "/nobody");
        assert_eq!((state.rows.len(), state.cursor()), (0, 0));
        press(&mut state, KeyCode::Down);
        press(&mut state, KeyCode::Enter);
        press(&mut state, KeyCode::Enter);
        assert!(matches!(state.page, Page::Table), "there is no row to look at");
    }

    #[test]
    fn a_detail_adds_up_from_when_it_is_opened_on() {
        let mut state = state();
        press(&mut state, KeyCode::Char('c'));
        press(&mut state, KeyCode::Enter);
        let Page::Detail(one) = state.page.clone() else { panic!("no detail") };
        assert!(one.counts.runs() > 0 && !one.blamed.is_empty());
        state.take(fixture::sample());
        let Page::Detail(two) = &state.page else { panic!("no detail") };
        assert_eq!((two.counts.runs(), two.blamed[0].1), (2 * one.counts.runs(), 2 * one.blamed[0].1));
        assert!(two.seconds > one.seconds && !two.gone);
        let mut without = fixture::sample();
        without.groups.clear();
        state.take(without);
        let Page::Detail(gone) = &state.page else { panic!("no detail") };
        assert!(gone.gone && gone.counts.runs() == 2 * one.counts.runs());
        assert_eq!(press(&mut state, KeyCode::Esc), Then::Draw);
        assert!(matches!(state.page, Page::Table));
    }

    #[test]
    fn rows_are_of_what_is_asked_for() {
        let mut state = state();
        assert_eq!(press(&mut state, KeyCode::Char('4')), Then::Look);
        assert!(state.rows.iter().all(|row| row.thread.is_some()) && !state.rows.is_empty());
        assert_eq!(press(&mut state, KeyCode::Char('4')), Then::Draw);
        assert_eq!(press(&mut state, KeyCode::Tab), Then::Look);
        assert_eq!(state.by, By::Groups);
        assert_eq!(press(&mut state, KeyCode::BackTab), Then::Look);
        assert_eq!(state.by, By::Threads);
        let cgroups = |state: &State| state.rows.iter().map(|row| row.ids.len()).max();
        press(&mut state, KeyCode::Char('3'));
        assert_eq!(cgroups(&state), Some(1));
        press(&mut state, KeyCode::Char('1'));
        assert_eq!(cgroups(&state), Some(2), "two containers of a pod");
    }

    #[test]
    fn a_pause_takes_nothing_new() {
        let mut state = state();
        press(&mut state, KeyCode::Char(' '));
        let mut other = fixture::sample();
        other.groups.clear();
        state.take(other.clone());
        assert!(!state.rows.is_empty());
        press(&mut state, KeyCode::Char(' '));
        state.take(other);
        assert!(state.rows.is_empty());
    }

    #[test]
    fn keys_end_what_is_open_and_then_the_program() {
        for open in ['?', 'p'] {
            let mut state = state();
            press(&mut state, KeyCode::Char(open));
            assert!(!matches!(state.page, Page::Table));
            assert_eq!(press(&mut state, KeyCode::Char('q')), Then::Draw);
            press(&mut state, KeyCode::Char(open));
            press(&mut state, KeyCode::Char(open));
            assert!(matches!(state.page, Page::Table));
            assert_eq!(press(&mut state, KeyCode::Char('q')), Then::End);
        }
        let mut state = state();
        letters(&mut state, "/q");
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), 5), Then::End);
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL), 5), Then::Stop);
    }
}
