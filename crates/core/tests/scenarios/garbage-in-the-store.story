# Garbage in any key is a warning and nothing more (INV-S20, IN-D1, IN-D3, IN-D4, IN-D5, IN-D6, IN-D7, IN-D8, IN-D9).
# Only the leader restores what the store has lost (CYC-7, DIR-10).

> running a b c
> put status }{
> put history 17
> put failover [
> put sync "x"
> put failsafe 0
> put members/b xyz
> put config garbage
> put initialize garbage
> tick 30s
    0.011  a      the store has no valid system identifier: stores ours -> write initialize [DIR-9 CYC-7]
    0.011  a      the store lost the configuration: the leader writes it back -> write config [CYC-8]
    0.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
> expect a primary
> expect b replica of a
> put leader a/b
   30.000  store  the leader key is a/b's
> tick 5s
   30.011  a      PostgreSQL is primary, but the leader key is held by (unreadable)/ -> stop at once [OWN-4 FOL-3 DCS-2]
   30.012  b      nobody holds the leader key; the present upstream is kept [FOL-13]
   30.013  c      nobody holds the leader key; the present upstream is kept [FOL-13]
   30.022  a      demote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   30.111  a      PostgreSQL has stopped
   30.111  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
   30.122  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.111  a      PostgreSQL has recovered in single-user mode
   31.111  a      starts PostgreSQL as a replica; there is no leader yet -> start as standby of nobody [REC-11 NTF-4]
   31.122  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   31.161  a      nobody holds the leader key; the present upstream is kept [FOL-13]
   31.561  a      PostgreSQL accepts connections as standby
> expect leader a/b
> delete leader
   35.000  store  the leader key is gone
> wait 30s until a primary
   35.011  a      nobody holds the leader key: asks the other members -> ask b and c [PEER-1 RACE-3]
   35.012  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
   35.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
   35.016  a      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   35.016  store  the leader key is a's
   35.016  a      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
   35.016  a      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
   35.017  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   35.018  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
   35.028  b      follows the leader a [OWN-7 FOL-12]
   35.029  c      follows the leader a [OWN-7 FOL-12]
   35.226  a      PostgreSQL is primary on timeline 2
> wait 60s until b replica of a
> wait 60s until c replica of a
