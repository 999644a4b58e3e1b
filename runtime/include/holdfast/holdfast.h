// Everything a training program needs.
#pragma once

#include "holdfast/runtime/error.h"
#include "holdfast/runtime/loader.h"
#include "holdfast/runtime/session.h"
#include "holdfast/runtime/state.h"
