// layer 6: everything.
#pragma once

#include "error.hpp"
#include "file_descriptor.hpp"
#include "ghost_census.hpp"
#include "ghost_census_types.hpp"
#include "pid_lockfile.hpp"
#include "pid_lockfile_types.hpp"
#include "process_group.hpp"
#include "process_group_types.hpp"
#include "process_identity.hpp"
#include "process_table.hpp"
#include "process_table_types.hpp"
#include "signal_cleanup.hpp"
#include "single_instance.hpp"
#include "version.hpp"
