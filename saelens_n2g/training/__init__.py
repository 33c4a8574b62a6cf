"""Training of dictionaries: `train(config, rows, folder, metadata=...)` writes a SAELens folder."""

from saelens_n2g.training.config import TrainingConfig as TrainingConfig
from saelens_n2g.training.loop import Job as Job
from saelens_n2g.training.loop import TrainingResult as TrainingResult
from saelens_n2g.training.loop import job_of as job_of
from saelens_n2g.training.loop import train as train
from saelens_n2g.training.loop import train_several as train_several
from saelens_n2g.training.metrics import Evaluation as Evaluation
from saelens_n2g.training.metrics import evaluate as evaluate
from saelens_n2g.training.rows import Rows as Rows
from saelens_n2g.training.rows import Stream as Stream
from saelens_n2g.training.rows import as_rows as as_rows
