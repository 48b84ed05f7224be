//! Decisions as tables: a plain base view, one difference a row, a name that is a sentence.

mod asked;
mod consent;
mod copies;
mod cycle;
mod down;
mod forks;
mod held;
mod leading;
mod named;
mod promoting;
mod racing;
mod requests;
mod standby_cluster;
mod synchronous;

use std::sync::Arc;
use std::time::Duration;

use super::peers::PeerStatus;
use super::testing::*;
use super::view::*;
use super::*;
use crate::cluster::{LeaseId, MemberRole, Revision};
use crate::names::MemberName;
use crate::time::WallTime;
use crate::wal::{Lsn, Timeline};
