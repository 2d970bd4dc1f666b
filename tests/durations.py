"""How long the suite's long files take: seconds of ``make test`` on two busy cores (``--durations=60`` tells anew).

The longest begin first, so that workers that run files side by side end together, and none is left alone with one.
"""

SECONDS = {
    "tests/e2e/test_airflow.py": 602,
    "tests/e2e/test_demo.py": 399,
    "tests/dags/test_runs.py": 367,
    "tests/history/test_history.py": 196,
    "tests/e2e/test_pipeline.py": 158,
    "tests/chaos/test_library.py": 110,
    "tests/e2e/test_finetune.py": 87,
    "tests/history/test_sentences.py": 80,
    "tests/e2e/test_image_urls.py": 69,
    "tests/dags/test_metrics.py": 68,
    "tests/unit/operations/test_forecast.py": 66,
    "tests/unit/models/test_local.py": 58,
    "tests/integration/test_wheel.py": 56,
    "tests/unit/inference/test_batch_session.py": 50,
    "tests/unit/storage/test_log.py": 45,
    "tests/integration/test_store_contract.py": 41,
    "tests/unit/storage/test_downloads.py": 41,
    "tests/unit/models/test_encoders.py": 38,
    "tests/e2e/test_takedown.py": 32,
    "tests/unit/sources/test_builtin.py": 31,
    "tests/unit/simulator/test_server.py": 26,
    "tests/unit/reports/test_html_page.py": 25,
    "tests/unit/operations/test_plan.py": 25,
    "tests/unit/sources/test_decoders.py": 24,
    "tests/integration/test_races.py": 23,
    "tests/dags/test_plugin.py": 19,
    "tests/integration/test_s3_dialects.py": 18,
    "tests/integration/test_transformers_serve.py": 15,
}
