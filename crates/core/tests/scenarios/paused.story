# Maintenance mode: nobody is started, stopped or promoted, and the key is given up only by who is no primary any more.
# (PAU-1, IN-C18, PAU-2, PAU-3, PAU-5, PAU-6, PAU-8, PAU-9, CYC-5, PAU-16)

> running a b c
> pause
> tick 15s
# The lock is not worth an election now:
> store down
> tick 60s
   20.000  a      the store does not answer (no answer); nothing is done in pause [DCSF-1 PAU-8]
   20.000  b      the store does not answer (no answer); nothing is done in pause [DCSF-1 PAU-8]
   20.000  c      the store does not answer (no answer); nothing is done in pause [DCSF-1 PAU-8]
> expect a primary
> store up
> tick 15s
   75.000  store  the leader key is gone
   75.011  a      PostgreSQL is primary and nobody holds the leader key in pause: takes it -> acquire the leader key [HLT-4 PAU-5]
   75.011  store  the leader key is a's
   75.011  a      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
   75.012  b      follows the leader a [OWN-7 FOL-12]
   75.013  c      follows the leader a [OWN-7 FOL-12]
> expect leader a
# A crashed primary gives the key up and nobody stands:
> crash postgres a
   90.000  a      PostgreSQL is gone
> tick 60s
   90.000  a      holds the leader key in pause without a running primary: gives it up -> release the leader key [PAU-3 PAU-4 OWN-2]
   90.000  store  the leader key is gone
   90.000  a      PostgreSQL is down and is not started in pause [PAU-9]
   90.012  b      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
   90.013  c      nobody holds the leader key, and replicas do not stand in pause [HLT-6 PAU-6]
> expect nobody primary
> expect leader nobody
> expect a down
# Afterwards the members elect:
> resume
> wait 60s until b primary
  150.011  a      PostgreSQL was not stopped in order: recovers it in single-user mode first -> recover in single-user mode [REC-5 REC-13]
  150.012  b      nobody holds the leader key: asks the other members -> ask a and c [PEER-1 RACE-3]
  150.013  c      nobody holds the leader key: asks the other members -> ask a and b [PEER-1 RACE-3]
  150.017  b      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  150.017  store  the leader key is b's
  150.017  b      holds the leader lease and PostgreSQL is a replica: promotes it -> promote [PRO-6 PRO-7 PRO-10]
  150.017  b      promote is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  150.018  c      nobody holds the leader key and no member is fitter: takes it -> acquire the leader key [UNL-3 RACE-10 DCS-1]
  150.028  a      crash recovery is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  150.030  c      follows b from now on -> follow b by a reload [FOL-10]
  150.030  c      follows the leader b [OWN-7 FOL-12]
  150.227  b      PostgreSQL is primary on timeline 2
> wait 60s until a replica of b
  150.227  b      leads; runs the checkpoint after the promotion -> checkpoint [RWD-15]
  150.239  b      leads; writes the history of timelines -> write history [HIS-1 PRO-11]
  150.239  b      this member holds the leader lease and its PostgreSQL is primary [OWN-3 PRO-4]
  150.240  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
  150.290  c      follows the leader b [OWN-7 FOL-12]
  151.011  a      PostgreSQL has recovered in single-user mode
  151.011  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
  151.061  a      its history has left that of b: rewinds -> rewind from b [RWD-5 RWD-9]
  151.072  a      rewind is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  151.074  c      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
  151.087  c      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  151.124  c      follows the leader b [OWN-7 FOL-12]
  153.111  a      has rewound from b
  153.111  a      starts PostgreSQL as a replica of b -> start as standby of b [REC-11 NTF-4]
  153.122  a      start is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  153.161  a      follows the leader b [OWN-7 FOL-12]
  153.561  a      PostgreSQL accepts connections as standby
  153.561  a      compares its history with that of b -> compare histories with b [RWD-2 RWD-3]
  153.572  a      divergence check is under way [ASY-2 ASY-3 ASY-6 ASY-7]
  153.611  a      follows the leader b [OWN-7 FOL-12]
