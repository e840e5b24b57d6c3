//! When a session is announced, when its link is said, and when it ends: a state machine over events.
//! It must never look at a clock itself, nor do anything: time comes in with each event, actions go out.

use std::time::Duration;

/// How long tmate may leave every question unanswered while somebody was last seen connected.
pub const STUCK: Duration = Duration::from_secs(60);
/// How long before the cap it is announced.
pub const ANNOUNCED: [Duration; 2] = [Duration::from_secs(5 * 60), Duration::from_secs(60)];

/// A point of time: how long after the start of the run.
pub type Moment = Duration;

/// The limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may take until it is ready.
    pub connect_timeout: Duration,
    /// How long nobody may be connected.
    pub max_idle: Duration,
    /// How long it may last once it is ready.
    pub max_duration: Option<Duration>,
    /// How often the link is said again.
    pub repeat: Option<Duration>,
}

/// How to connect. Empty where the server has no such link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// `ssh TOKEN@HOST`.
    pub ssh: String,
    /// The same for looking on.
    pub ssh_read_only: String,
    /// For a browser.
    pub web: String,
    /// The same for looking on.
    pub web_read_only: String,
}

/// Who is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// At least one.
    Somebody,
    /// Nobody.
    Nobody,
    /// tmate did not answer.
    Unanswered,
}

/// What tmate's answer says: its client count, whether the connection to the server is up, and whether the
/// socket has the owner-execute bit, which tmate sets while somebody is connected. The count is that of the
/// server and stays as it was while the server is away; only some servers keep one.
pub fn presence(count: &str, server_is_up: bool, execute_bit: bool) -> Presence {
    let counted = count.trim().parse::<u64>().is_ok_and(|count| count > 0);
    if execute_bit || (counted && server_is_up) { Presence::Somebody } else { Presence::Nobody }
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// tmate was asked; the links are empty before the session is ready, and when it did not answer.
    Answer(Presence, Links),
    /// Somebody has left, as servers that count say. The last one's leaving is an answer's to tell.
    SomebodyLeft,
    /// The connection to the server was lost.
    ServerLost,
    /// It is there again.
    ServerBack,
    /// tmate has ended.
    Exited,
    /// The continue file is there.
    ContinueFile,
    /// A signal has arrived.
    Signal(i32),
    /// Nothing but time.
    Tick,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was not ready in time.
    NotConnected,
    /// tmate ended before it was ready.
    ExitedEarly,
    /// tmate ended.
    Exited,
    /// Nobody was connected for as long as may be.
    Idle,
    /// It lasted as long as it may.
    Cap,
    /// The continue file appeared.
    ContinueFile,
    /// A signal arrived.
    Signal(i32),
    /// tmate answers no more.
    Stuck,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say how to connect.
    SayLinks(Links, Left),
    /// Say, in the log and in the session, that the cap is this far.
    AnnounceCap(Duration),
    /// End it.
    End(Ending),
}

/// How much time is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Until it ends because nobody is connected; `None` while somebody is.
    pub idle: Option<Duration>,
    /// Until the cap.
    pub cap: Option<Duration>,
}

/// A time that is left, for people: seconds below two minutes, then minutes, then hours and minutes.
pub fn in_words(left: Duration) -> String {
    // A second begun is one that is left.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The state of a session.
#[derive(Clone, Debug)]
pub struct Clock {
    limits: Limits,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Connecting,
    Ready(Ready),
    Ended,
}

#[derive(Clone, Debug)]
struct Ready {
    since: Moment,
    /// `None` while somebody is connected.
    idle_since: Option<Moment>,
    unanswered_since: Option<Moment>,
    links: Links,
    said: Moment,
    server_is_up: bool,
    /// The next answer is to be said: the server is back, or somebody has left.
    say_next: bool,
    announced: usize,
}

impl Clock {
    /// Of a run that begins at moment zero.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Connecting }
    }

    /// Whether the session has been ready.
    pub fn was_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// What follows from `event`. After an end nothing follows from anything.
    pub fn on(&mut self, now: Moment, event: Event) -> Vec<Action> {
        let ending = match (&event, &self.state) {
            (_, State::Ended) => return Vec::new(),
            (Event::Signal(signal), _) => Some(Ending::Signal(*signal)),
            (Event::Exited, State::Connecting) => Some(Ending::ExitedEarly),
            (Event::Exited, State::Ready(_)) => Some(Ending::Exited),
            (Event::ContinueFile, _) => Some(Ending::ContinueFile),
            _ => None,
        };
        let actions = match (ending, &mut self.state) {
            (Some(ending), _) => vec![Action::End(ending)],
            (None, State::Ready(ready)) => ready.on(&self.limits, now, event),
            (None, _) => match event {
                Event::Answer(presence, links) if presence != Presence::Unanswered && !links.ssh.is_empty() => {
                    let mut ready = Ready::new(now, &self.limits, links);
                    let actions = ready.on_ready(&self.limits, now, presence);
                    self.state = State::Ready(ready);
                    actions
                }
                _ if now >= self.limits.connect_timeout => vec![Action::End(Ending::NotConnected)],
                _ => Vec::new(),
            },
        };
        if actions.iter().any(|action| matches!(action, Action::End(_))) {
            self.state = State::Ended;
        }
        actions
    }

    /// The next moment at which something is due. tmate must be asked then, so that nobody who came in the
    /// last second is thrown out.
    pub fn due(&self) -> Option<Moment> {
        match &self.state {
            State::Connecting => Some(self.limits.connect_timeout),
            State::Ready(ready) => ready.due(&self.limits),
            State::Ended => None,
        }
    }
}

impl Ready {
    fn new(now: Moment, limits: &Limits, links: Links) -> Self {
        let announced =
            ANNOUNCED.iter().filter(|before| limits.max_duration.is_some_and(|cap| cap <= **before)).count();
        Self {
            since: now,
            idle_since: Some(now),
            unanswered_since: None,
            links,
            said: now,
            server_is_up: true,
            say_next: false,
            announced,
        }
    }

    fn on_ready(&mut self, limits: &Limits, now: Moment, presence: Presence) -> Vec<Action> {
        self.see(presence, now);
        vec![self.say(limits, now)]
    }

    fn on(&mut self, limits: &Limits, now: Moment, event: Event) -> Vec<Action> {
        if self.cap(limits).is_some_and(|cap| now >= cap) {
            return vec![Action::End(Ending::Cap)];
        }
        let mut actions = Vec::new();
        match event {
            Event::Answer(presence, links) => {
                let was_busy = self.idle_since.is_none();
                self.see(presence, now);
                if let Some(ending) = self.ending(limits, now) {
                    return vec![Action::End(ending)];
                }
                let answered = presence != Presence::Unanswered;
                let changed = answered && !links.ssh.is_empty() && links != self.links;
                if changed {
                    self.links = links;
                }
                let left = was_busy && self.idle_since.is_some();
                // A link of a server that is away leads nowhere: it is said when the server is back.
                if self.server_is_up && (changed || left || (answered && self.say_next)) {
                    actions.push(self.say(limits, now));
                }
            }
            // Where nobody is left that was said already.
            Event::SomebodyLeft => self.say_next |= self.idle_since.is_none(),
            Event::ServerLost => self.server_is_up = false,
            Event::ServerBack => {
                self.say_next |= !self.server_is_up;
                self.server_is_up = true;
            }
            _ => {}
        }
        if self.server_is_up && limits.repeat.is_some_and(|repeat| now >= self.said + repeat) {
            actions.push(self.say(limits, now));
        }
        if let Some(cap) = self.cap(limits) {
            let due = ANNOUNCED.iter().skip(self.announced).filter(|before| now + **before >= cap).count();
            if due > 0 {
                self.announced += due;
                actions.push(Action::AnnounceCap(cap.saturating_sub(now)));
            }
        }
        actions
    }

    fn see(&mut self, presence: Presence, now: Moment) {
        match presence {
            Presence::Somebody => self.idle_since = None,
            Presence::Nobody => self.idle_since = self.idle_since.or(Some(now)),
            Presence::Unanswered => {}
        }
        self.unanswered_since = match presence {
            Presence::Unanswered => self.unanswered_since.or(Some(now)),
            _ => None,
        };
    }

    /// Decided only upon an answer, or its absence, so that it is never older than the last moment.
    fn ending(&self, limits: &Limits, now: Moment) -> Option<Ending> {
        match (self.idle_since, self.unanswered_since) {
            (Some(since), _) if now >= since + limits.max_idle => Some(Ending::Idle),
            (_, Some(since)) if now >= since + STUCK => Some(Ending::Stuck),
            _ => None,
        }
    }

    fn say(&mut self, limits: &Limits, now: Moment) -> Action {
        self.said = now;
        self.say_next = false;
        let left = Left {
            idle: self.idle_since.map(|since| (since + limits.max_idle).saturating_sub(now)),
            cap: self.cap(limits).map(|cap| cap.saturating_sub(now)),
        };
        Action::SayLinks(self.links.clone(), left)
    }

    fn cap(&self, limits: &Limits) -> Option<Moment> {
        limits.max_duration.map(|duration| self.since + duration)
    }

    fn due(&self, limits: &Limits) -> Option<Moment> {
        let cap = self.cap(limits);
        let announcement = cap.zip(ANNOUNCED.get(self.announced)).map(|(cap, before)| cap.saturating_sub(*before));
        let repetition = limits.repeat.filter(|_| self.server_is_up).map(|repeat| self.said + repeat);
        let idle = self.idle_since.map(|since| since + limits.max_idle);
        let stuck = self.unanswered_since.map(|since| since + STUCK);
        [cap, announcement, repetition, idle, stuck].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
