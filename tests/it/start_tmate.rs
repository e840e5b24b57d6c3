//! `start-tmate`: with a tmate that plays what tmate can do wrong, and with the real one and a small server.

mod command_line;
mod fake;
mod real;
