// Everything a training program needs.
#pragma once

// Included first, so that little output precedes the compiler's message about a mistake.
#include "holdfast/runtime/data/data_mistakes.h"
#include "holdfast/runtime/data/loader.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/optim/fused_optimizers.h"
#include "holdfast/runtime/pipeline/stages/accumulate.h"
#include "holdfast/runtime/pipeline/stages/amp.h"
#include "holdfast/runtime/pipeline/stages/clip_grad.h"
#include "holdfast/runtime/pipeline/stages/ddp.h"
#include "holdfast/runtime/pipeline/stages/ema.h"
#include "holdfast/runtime/pipeline/stages/lr_schedule.h"
#include "holdfast/runtime/serialize/state.h"
#include "holdfast/runtime/serialize/state_mistakes.h"
#include "holdfast/runtime/session/session.h"
