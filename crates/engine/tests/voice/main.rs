//! The voice relay with clients and a media plane that do as the test says, in virtual time.

mod flood;
mod joining;
mod places;
mod random;
mod speaking;
mod support;
mod waiting;
mod wrong;
