// File formats.
#pragma once

#include "idx.h"
#include "image_grid.h"
#include "limits.h"
#include "safetensors.h"
#include "weights.h"
